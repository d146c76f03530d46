"""The setting of job=speed: a model of the asked size, clips, and configurations of points on them."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig, AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging as transformers_logging

from videopool.config.build import build, plain
from videopool.config.errors import ConfigError
from videopool.features import FeatureStore
from videopool.models import FAMILIES, Backbone, ModelError, ModelShape, identity, load_backbone, model_shape
from videopool.models.configuration import DTYPES
from videopool.models.shape import shape_differences, shape_from
from videopool.results import ResultsError

POINT_KEYS = ("max_failed_fraction", "reader", "workers", "max_visual_tokens", "max_clips")  # of `job`, for all points
MADE = ("llava", "llava_next")
# Keys of transformers' configurations, and the sizes in a ModelShape.
VISION = {
    "hidden_size": "vision_dim", "projection_dim": "vision_dim", "intermediate_size": "vision_intermediate",
    "num_hidden_layers": "vision_layers", "num_attention_heads": "vision_heads", "image_size": "image_size",
    "patch_size": "patch",
}  # fmt: skip
TEXT = {
    "hidden_size": "dim", "intermediate_size": "intermediate", "num_hidden_layers": "layers", "head_dim": "head_dim",
    "num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "vocab_size": "vocabulary",
    "max_position_embeddings": "context", "tie_word_embeddings": "tied",
}  # fmt: skip
Step = Callable[[], None]
Line = Callable[[str, int], Step]  # begins a part (title, steps) and returns its step function


@dataclass
class Bench:
    """Model and clips of one size, ready to measure."""

    config: DictConfig  # of the job
    size: dict[str, Any]  # its block of job.sizes, resolved
    folder: Path  # for results and files, deleted at the end
    clips: Path  # folder of the clips and their questions
    model: dict[str, Any]  # keys of the group `model`
    in_memory: Backbone | None = None  # the model, if its weights are in no file

    def load(self) -> Backbone:
        """The model, loaded anew if its weights are in files."""
        return self.in_memory or load_backbone(self.model["source"], self.model["name"], self.model["dtype"])

    @cached_property
    def backbone(self) -> Backbone:
        """The model, loaded once."""
        return self.load()

    def store(self, name: str) -> FeatureStore:
        """An empty feature store."""
        own: dict[str, Any] = {"root": str(self.folder / name)} if "root" in self.config.job.store else {}
        return build(self.config.job, "store", **own)

    def point(self, study: str, pooling: Any, frames: int, questions: int | None = None, **job: Any) -> DictConfig:
        """The configuration of a point with uniform frames and so many questions per clip (None: the size's number).

        `job` changes that group, except `scoring`, which goes to the benchmark.
        """
        benchmark = {
            "_target_": "videopool.benchmarks.load_mvbench", "id": "timing", "root": str(self.clips),
            "tasks": [f"questions_{questions or self.size['questions']}"],
            "scoring": job.pop("scoring", "likelihood"), "max_new_tokens": 16,
        }  # fmt: skip
        job = {"name": "evaluate", **{key: self.config.job[key] for key in POINT_KEYS}, **job}
        return self._composed(study, pooling, frames, job=job, benchmark=benchmark)

    def training(self, study: str, pooling: Any, steps: int, **job: Any) -> DictConfig:
        """The configuration of a training of so many steps on conversations about the clips; `job` as in point()."""
        settings = plain(self.config.job.training)
        source = {"_target_": "videopool.training_data.load_llava", **self.conversations}
        return self._composed(
            study, pooling, settings["frames"],
            job={"name": "finetune", "evaluate": False, **settings["job"], **job},
            training={**settings["recipe"], "steps": steps},
            training_data={"sources": {"timing": source}},
        )  # fmt: skip

    def _composed(self, study: str, pooling: Any, frames: int, **groups: Any) -> DictConfig:
        config = self.config.copy()
        OmegaConf.set_struct(config, False)
        groups |= {
            "pooling": {"stage": "projector", **plain(pooling)},
            "frames": {"_target_": "videopool.video.UniformSampler", "num": int(frames)},
            "model": {**config.model, **self.model},
            "logger": {"name": "none"},
            "features": {"_target_": "videopool.features.FeatureStore"},
        }
        for name, value in {**groups, "results_dir": str(self.folder), "study": study}.items():
            config[name] = value
        return config

    @cached_property
    def conversations(self) -> dict[str, str]:
        """Path and root of a file in LLaVA's layout: a conversation per clip, of its first questions."""
        asked = json.loads((self.clips / "json" / f"questions_{self.size['questions']}.json").read_text())
        entries, rounds = [], int(self.config.job.training.rounds)
        for name, of_clip in groupby(asked, itemgetter("video")):
            turns: list[dict[str, str]] = []
            for one in islice(of_clip, rounds):
                turns += [{"from": "human", "value": one["question"]}, {"from": "gpt", "value": one["answer"]}]
            turns[0]["value"] = f"<video>\n{turns[0]['value']}"
            entries.append({"id": f"video/{name}", "video": f"video/{name}", "conversations": turns})
        path = self.folder / "conversations.json"
        path.write_text(json.dumps(entries))
        return {"path": str(path), "root": str(self.clips)}


@contextmanager
def bench(config: DictConfig) -> Iterator[Bench]:
    """Make model and clips in a temporary folder of the study, which is deleted afterwards.

    Raises ConfigError for a size that is not there, needs a missing GPU or makes nothing, and ResultsError if the
    folder cannot be written.
    """
    job, sizes = config.job, plain(config.job.sizes)
    if job.size not in sizes:
        raise ConfigError(f"job.size={job.size}: choose one of {', '.join(sizes)}")
    size = sizes[job.size]
    if size["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"job.size={job.size} needs a GPU, and there is none here; choose job.size=small")
    study = Path(config.results_dir).resolve() / config.study
    try:
        study.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".speed-", dir=study))
    except OSError as error:
        raise ResultsError(f"{study} cannot be written: {error.strerror or error}") from error
    try:
        numbers = {name: size[name] for name in ("clips", "pixels", "hold")}
        clips = build(job, "write_clips", root=str(folder), questions=[size["questions"], *job.asked], **numbers)
        made, in_memory = folder / "model", None
        if size["source"] is None:
            block = size["shape"]
            if isinstance(block, str):
                block = OmegaConf.to_container(compose("config", overrides=[f"model={block}"]).model.shape)
            shape, tokenizer = shape_from(block, f"job.sizes.{job.size}.shape"), instantiate(job.tokenizer)
            if size["in_files"]:
                save_random_model(shape, tokenizer, made)
            else:
                where = size["device"], DTYPES[size["dtype"]]
                in_memory = random_backbone(shape, tokenizer, made, size["name"], *where)
        model = {"name": size["name"], "source": str(size["source"] or made), "dtype": size["dtype"], "shape": None}
        yield Bench(config, size, folder, clips, model, in_memory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configuration(shape: ModelShape, tokenizer: Any) -> Any:
    """A transformers configuration with a CLIP tower and a LLaMA of these sizes."""
    if shape.family not in MADE or shape.text != "llama" or not shape.cls or shape.feature_layers != 1:
        raise ModelError(f"no random {shape.family} on {shape.text}: {', '.join(MADE)} on llama with CLIP only")
    if shape.vocabulary < len(tokenizer):
        raise ModelError(f"a vocabulary of {shape.vocabulary} does not hold the tokenizer's {len(tokenizer)} words")
    text = {key: getattr(shape, name) for key, name in TEXT.items()}
    text |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(
        shape.family,
        vision_config=CLIPVisionConfig(**{key: getattr(shape, name) for key, name in VISION.items()}),
        text_config=LlamaConfig(**text, rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta}),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=shape.vision_layers_run,
        image_seq_length=shape.height * shape.width,
        tie_word_embeddings=shape.tied,
    )
    if differences := shape_differences(shape, model_shape(config)):
        raise ModelError(f"no random model has these sizes: {differences}")
    return config


def random_backbone(
    shape: ModelShape, tokenizer: Any, folder: Path, name: str, device: str, dtype: torch.dtype
) -> Backbone:
    """A model with random weights (speed does not depend on them) in no file; the folder gets all its other files.

    Matrices are normal, with a standard deviation of (number of columns)^-0.5: options then differ by about one in
    log-probability, so that rounding hardly changes the likeliest. Norms and biases keep their initial values.

    Raises ModelError if no such model has these sizes, or the vocabulary is smaller than the tokenizer's.
    """
    config, side = _configuration(shape, tokenizer), shape.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {**processor.to_dict(), "image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, default=str))
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
    # Placed: otherwise Lightning would move the weights to the CPU at the end of every point.
    return FAMILIES[shape.family](model, tokenizer, processor, shape, name, identity(str(folder)), placed=True)


def save_random_model(shape: ModelShape, tokenizer: Any, folder: Path) -> None:
    """Make a model in float32 and save it like a released one. Raises ModelError as random_backbone()."""
    backbone = random_backbone(shape, tokenizer, folder, "random", "cpu", torch.float32)
    transformers_logging.disable_progress_bar()
    try:
        backbone.model.save_pretrained(folder)
    finally:
        transformers_logging.enable_progress_bar()
