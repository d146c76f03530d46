"""job=assemble: a LLaVA folder of a vision tower and a language model."""

from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from videopool.benchmarks import Benchmark
from videopool.config.build import build, check, plain, whole
from videopool.config.errors import ConfigError
from videopool.features.loading import ClipRequest, load_clip
from videopool.files import whole_folder
from videopool.inference.read_plan import group_by_clip, read_plan
from videopool.models import Backbone
from videopool.models.configuration import DTYPES
from videopool.notes import note
from videopool.pooling import NoPooling
from videopool.results.errors import writing
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.progress import watched
from videopool.training.assembly import assemble, median_length, sampled, save_assembled, whiten

EXAMPLES = {"tower": "openai/clip-vit-base-patch16", "language": "HuggingFaceTB/SmolLM2-135M-Instruct"}
PATCHES = 500  # of a clip that the projector starts from


def run(config: DictConfig) -> Outcome:
    """Join the parts, let the projector start from clips of the benchmark, and save the whole."""
    check(config, {tuple(DTYPES): ["job.dtype"], whole(1): ["job.clips"], whole(-1000): ["job.layer"]})
    job = plain(config.job)
    for key, example in EXAMPLES.items():
        if not job[key]:
            raise ConfigError(f"job.{key} is not given: a folder, or a Hugging Face id as in job.{key}={example}")
    out = Path(job["out"]).expanduser()
    if out.exists():
        raise ConfigError(f"job.out={out} exists; name another folder, or remove it")
    backbone = assemble(job["tower"], job["language"], job["layer"], job["dtype"], int(config.seed))
    features = sampled(_grids(config, backbone, int(job["clips"])), PATCHES, int(config.seed))
    length = median_length(backbone.model.get_input_embeddings().weight)
    whiten(backbone.projector, features.to(torch.float32), length, int(config.seed))
    with writing(out), whole_folder(out) as folder:
        save_assembled(backbone, job["tower"], folder)
    shape = backbone.shape
    note(f"the projector is not trained: videopool job=finetune model=local model.source={out}")
    tokens = f"{shape.height} x {shape.width} tokens of {shape.vision_dim}"
    made = f"{tokens} for {shape.text} of {shape.layers} layers x {shape.dim}; projector from {len(features)} patches"
    return Outcome(COMPLETE, "assemble", f"wrote {out}: {made}", str(out))


@torch.inference_mode()
def _grids(config: DictConfig, backbone: Backbone, count: int) -> Iterator[Tensor]:
    """Patch grids [T, H, W, Dv] of clips that can be read, evenly spread over the benchmark."""
    benchmark: Benchmark = build(config, "benchmark")
    every = group_by_clip(benchmark.samples)
    plan = read_plan(build(config, "frames"), str(config.job.reader), backbone.image_processor, NoPooling())
    wanted = min(count, len(every))
    chosen = [every[place * len(every) // wanted] for place in range(wanted)]
    for job in watched(chosen, "reading clips"):
        clip = load_clip(ClipRequest(job), plan)
        if clip.pixels is None:
            note(f"not read: {clip.error}")
        else:
            yield backbone.encode(clip.pixels)
