"""A training run in W&B while it runs: loss, rate, speed, held-out loss, norms of visual tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import jsonable
from videopool.tracking.run import telling, wandb_run

# Names in W&B, by key of a line of the log.
NAMES = {
    "step": "step",
    "loss": "train/loss",
    "ema": "train/loss_moving_mean",
    "rate": "train/rate",
    "validation_loss": "validation/loss",
    "visual_norm_median": "visual_tokens/median_norm",
    "visual_norm_max_over_median": "visual_tokens/max_over_median_norm",
}
SUMMARY = (
    "steps", "loss", "validation_loss", "best_validation_loss", "examples", "labelled_tokens", "seconds_per_step",
)  # fmt: skip


class TrainingCurves:
    """Logs the lines of a training run's log; does nothing without a W&B run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Log lines of log.jsonl, in their order. A resumed run starts with the lines of its earlier attempts."""
        if self._run is None:
            return
        with telling("log the training curves"):
            for row in rows:
                values = {name: row[key] for key, name in NAMES.items() if key in row}
                if row.get("step_seconds"):
                    values["train/labelled_tokens_per_second"] = row["tokens"] / row["step_seconds"]
                self._run.log(values)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Put the metrics of the whole run into its summary."""
        if self._run is not None:
            with telling("note the figures of the run"):
                self._run.summary.update({f"run/{name}": metrics[name] for name in SUMMARY})


@contextmanager
def training_curves(config: DictConfig, folder: Path, described: Mapping[str, Any]) -> Iterator[TrainingCurves]:
    """A W&B run of type "finetune" for the training run of a folder. Raises ConfigError as wandb_run."""
    content = {**jsonable(config), "training_run": {"name": folder.name, **described}}
    with wandb_run(config, folder.parent, "finetune", folder.name, content) as run:
        if run is not None:
            with telling("define the axes of plots"):
                run.define_metric("step")
                for name in ("train/*", "validation/*", "visual_tokens/*"):
                    run.define_metric(name, step_metric="step")
        yield TrainingCurves(run)
