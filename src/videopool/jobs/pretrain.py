"""job=pretrain: make the mini model."""

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from videopool.config.build import build
from videopool.config.errors import ConfigError
from videopool.figures import learning_curve, save_figure
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.shapes.pretraining import pretrain


def run(config: DictConfig) -> Outcome:
    """Run the recipe, or go on with it."""
    if config.job.device not in ("cpu", "cuda"):
        raise ConfigError(f"job.device={config.job.device!r}: choose cpu or cuda")
    recipe = build(config.job, "recipe")
    folder = Path(config.job.out)
    out = pretrain(recipe, build(config, "prompt"), folder, str(config.job.device))
    checks = pd.read_json(folder / "log.jsonl", lines=True)
    save_figure(learning_curve(checks), folder / "learning_curve")
    return Outcome(COMPLETE, "pretrain", f"wrote {out}", str(out))
