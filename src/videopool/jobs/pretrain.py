"""job=pretrain: train the bundled toy model, or a LLaVA with its words on another tower."""

from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from videopool.config.build import build, check, whole
from videopool.config.errors import ConfigError
from videopool.figures import learning_curve, save_figure
from videopool.models import load_backbone
from videopool.models.configuration import DTYPES
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.shapes.pretraining import pretrain, pretrain_on
from videopool.shapes.tokenizer import build_tokenizer

TOY = "videopool:shapes/mini_llava"


def run(config: DictConfig) -> Outcome:
    """Run the recipe, or resume it."""
    check(config, {("cpu", "cuda"): ["job.device"], tuple(DTYPES): ["job.dtype"], whole(1): ["job.images"]})
    job, folder = config.job, Path(config.job.out)
    recipe, prompt = build(job, "recipe"), build(config, "prompt")
    out = _on(job, recipe, prompt, folder) if job.start else pretrain(recipe, prompt, folder, job.device)
    checks = pd.read_json(folder / "log.jsonl", lines=True)
    save_figure(learning_curve(checks), folder / "learning_curve")
    return Outcome(COMPLETE, "pretrain", f"wrote {out}", str(out))


def _on(job: Any, recipe: Any, prompt: Any, folder: Path) -> Path:
    """The recipe on the tower of a LLaVA. Raises ConfigError if its words are not the toy model's."""
    start = load_backbone(job.start, device=job.device)
    if start.tokenizer.get_vocab() != build_tokenizer().get_vocab():
        raise ConfigError(f"job.start={job.start}: its words are not the toy model's: job=assemble job.language={TOY}")
    start.tower("image").to(DTYPES[job.dtype])

    def encode(frames: Any) -> Any:
        return start.encode(start.preprocess(frames), "image")

    made = start.model, start.tokenizer, start.image_processor, encode, f"{start.identity[:8]}-{job.dtype}"
    return pretrain_on(*made, int(job.images), recipe, prompt, folder)
