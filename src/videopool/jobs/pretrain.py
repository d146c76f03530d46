"""job=pretrain: train the bundled toy model."""

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from videopool.config.build import build, check
from videopool.figures import learning_curve, save_figure
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.shapes.pretraining import pretrain


def run(config: DictConfig) -> Outcome:
    """Run the recipe, or resume it."""
    check(config, {("cpu", "cuda"): ["job.device"]})
    folder = Path(config.job.out)
    out = pretrain(build(config.job, "recipe"), build(config, "prompt"), folder, config.job.device)
    checks = pd.read_json(folder / "log.jsonl", lines=True)
    save_figure(learning_curve(checks), folder / "learning_curve")
    return Outcome(COMPLETE, "pretrain", f"wrote {out}", str(out))
