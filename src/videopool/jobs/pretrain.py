"""job=pretrain: make the mini model."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.jobs.build import build
from videopool.jobs.errors import ConfigError
from videopool.jobs.outcome import COMPLETE, Outcome
from videopool.shapes.pretraining import pretrain as run_recipe


def pretrain(config: DictConfig) -> Outcome:
    """Run the recipe, or go on with it."""
    if config.job.device not in ("cpu", "cuda"):
        raise ConfigError(f"job.device={config.job.device!r}: choose cpu or cuda")
    recipe = build(config.job, "recipe")
    out = run_recipe(recipe, build(config, "prompt"), Path(config.job.out), str(config.job.device))
    return Outcome(COMPLETE, "pretrain", f"wrote {out}", str(out))
