"""What W&B gets of a point: its scores and costs, a table of them by task, and a table of predictions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.config.build import jsonable, number
from videopool.tracking.run import telling, wandb_run

AXES = ("frames", "visual_tokens")  # logged beside the scores, so that they can be plotted against either
SCORES = ("score", "ci_low", "ci_high", "groups/*", "tasks/*")
RECORD = ("id", "clip", "task", "question", "answer", "prediction", "score", "status")
IF_PRESENT = ("parsed", "verdict", "judge_grade", "reason")  # of a record: only some settings write these
SUMMARY = ("score", "ci_low", "ci_high", "chance", "n", "n_failed")

# Overrides that say where and how fast, not what: they are left out of a run's name.
NOT_IN_NAMES = ("study", "results_dir", "data_dir", "force", "baseline", "experiment", "logger", "features", "hydra")
LONGEST_NAME = 128  # characters that the server takes


class PointRun:
    """Where a point's results go; nowhere, without a logger."""

    def __init__(self, run: Any, predictions: int) -> None:
        self._run, self._predictions = run, predictions

    def finish_point(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
        """Log metrics, scores of groups and tasks, and predictions."""
        if self._run is None:
            return
        with telling("log the scores"):
            self._run.log(self._numbers(metrics), commit=False)  # with the tables, at one step
        with telling("log the tables"):
            self._run.log(self._tables(metrics, records))

    def _numbers(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        found = {k: v for k, v in metrics.items() if isinstance(v, (int, float))}
        found |= {f"seconds/{kind}": spent for kind, spent in metrics["seconds"].items()}
        for kind in ("groups", "tasks"):
            named = {name: one["score"] for name, one in metrics[kind].items() if name}
            found |= {f"{kind}/{name}": score for name, score in named.items() if score is not None}
        return found | {name: self._run.config["point"][name] for name in (*AXES, "prefill_gflops")}

    def _tables(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import wandb

        tables = {"scores": scores_table(metrics)}
        if self._predictions:
            tables["predictions"] = predictions_table(records[: self._predictions])
        return {name: wandb.Table(**content, allow_mixed_types=True) for name, content in tables.items()}


@contextmanager
def point_run(config: DictConfig, folder: Path, about: Mapping[str, Any]) -> Iterator[PointRun]:
    """A run for one point.

    Its configuration is the point's, resolved, and under `point` what tables say about it.

    Args:
        folder: of the point, in its study's.
        about: what tables say about the point.

    Raises:
        ConfigError: no such logger or mode, or logger.predictions is no number of rows.
    """
    rows = number(config, "logger.predictions", 0, whole=True) if config.logger.name == "wandb" else 0
    told = {k: v for k, v in about.items() if v is None or isinstance(v, (str, int, float))}
    content = {**jsonable(config), "point": {"name": folder.name, **told}}
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    with wandb_run(config, folder.parent, str(config.job.name), run_name(words, folder.name), content) as run:
        if run is not None:
            with telling("define the axes of plots"):
                for axis in AXES:
                    run.define_metric(axis)
                for name in SCORES:
                    run.define_metric(name, step_metric=AXES[0])
        yield PointRun(run, rows)


def run_name(words: Sequence[str], otherwise: str) -> str:
    """The overrides that make a point what it is, pooling and frames first.

    The same words make the same point again. The folder's name, which says a sweep over seeds or prompts by
    its fingerprint only, is in the configuration.

    Args:
        words: overrides as given.
        otherwise: the name if nothing is overridden, or too much.
    """

    def group(word: str) -> str:
        return word.lstrip("+~").split("=")[0].split(".")[0].split("/")[0]

    kept = [w for w in words if group(w) not in NOT_IN_NAMES and w.split("=")[0] not in ("job", "benchmark.root")]
    order = {"pooling": 0, "frames": 1}
    name = " ".join(sorted(kept, key=lambda word: order.get(group(word), len(order))))
    return name if name and len(name) <= LONGEST_NAME else otherwise


def scores_table(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Columns and rows: scores of groups, then of tasks."""
    rows = [
        [kind, name, *(one[column] for column in SUMMARY)]
        for kind, plural in (("group", "groups"), ("task", "tasks"))
        for name, one in metrics[plural].items()
    ]
    return {"columns": ["kind", "name", *SUMMARY], "data": rows}


def predictions_table(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns and rows of records; columns that only some settings write stand where a record has them."""
    columns = [*RECORD, *(name for name in IF_PRESENT if any(name in record for record in records))]
    return {"columns": columns, "data": [[record.get(name) for name in columns] for record in records]}
