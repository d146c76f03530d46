"""One W&B run a point: opened, filled, and always finished, so that points of a sweep never merge."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.jobs.build import jsonable
from videopool.jobs.errors import ConfigError

MODES = ("offline", "online")


class PointRun:
    """Where a point's results go; nowhere, without a logger."""

    def __init__(self, run: Any = None, predictions: int = 0) -> None:
        self._run, self._predictions = run, predictions

    def log(self, content: Mapping[str, Any]) -> None:
        """Log what another job than evaluate has found."""
        if self._run is not None:
            self._run.log(dict(content))

    def finish_point(
        self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
    ) -> None:
        """Log metrics, scores of groups and tasks, and a table of predictions."""
        if self._run is None:
            return
        import wandb

        flat = {k: v for k, v in metrics.items() if isinstance(v, (int, float))}
        for kind in ("groups", "tasks"):
            flat |= {f"{kind}/{name}": one["score"] for name, one in metrics[kind].items() if one["score"] is not None}
        flat |= {f"seconds/{kind}": spent for kind, spent in metrics["seconds"].items()}
        flat |= {name: about[name] for name in ("visual_tokens", "frames", "prefill_gflops")}
        names = ("id", "clip", "task", "question", "answer", "prediction", "score", "status")
        table = wandb.Table(columns=list(names))
        for record in records[: self._predictions]:
            table.add_data(*(record.get(name) for name in names))
        self._run.log({**flat, "predictions": table})


@contextmanager
def wandb_run(config: DictConfig, folder: Path, job: str) -> Iterator[PointRun]:
    """A run for one point if the logger is W&B.

    Group is the study, name the point; files go to <results_dir>/<study>/wandb.

    Raises:
        ConfigError: no such logger or mode.
    """
    logger = config.logger
    if logger.name == "none":
        yield PointRun()
        return
    if logger.name != "wandb" or logger.mode not in MODES:
        raise ConfigError(f"logger={logger.name} mode={logger.get('mode')}: choose wandb ({', '.join(MODES)}) or none")
    import wandb

    root = folder.parent / "wandb"
    root.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_SILENT", "true")
    run = wandb.init(
        project=logger.project,
        entity=logger.entity,
        group=config.study,
        name=folder.name,
        job_type=job,
        mode=logger.mode,
        dir=str(folder.parent),
        config=jsonable(config),
        reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off"),
    )
    code = 1
    try:
        yield PointRun(run, int(logger.predictions))
        code = 0
    finally:
        try:
            run.finish(exit_code=code)
        except Exception as error:  # what W&B cannot write must not cost the point
            print(f"videopool: W&B could not finish the run: {error}", file=sys.stderr)
