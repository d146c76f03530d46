"""A point in W&B: scores, costs and predictions, or norms."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.config.build import jsonable
from videopool.norms import load_norms
from videopool.norms.outliers import GAP
from videopool.tracking.run import telling, wandb_run

AXES = ("frames", "visual_tokens")  # logged beside the scores, so that they can be plotted against either
SCORES = ("score", "ci_low", "ci_high", "groups/*", "tasks/*")
RECORD = ("id", "clip", "task", "question", "answer", "prediction", "score", "status")
IF_PRESENT = ("parsed", "verdict", "judge_grade", "reason")  # keys of records that only some settings write
SUMMARY = ("score", "ci_low", "ci_high", "chance", "n", "n_failed")
NORMS = ("mean", "std", "max", "max_over_median", "excess_kurtosis", "gini", "neighbour_cosine")
MOST_BINS = 512  # of a histogram; limit of W&B

# Overrides that do not change the point; a run's name leaves them out.
NOT_IN_NAMES = ("study", "results_dir", "data_dir", "force", "baseline", "experiment", "logger", "features", "hydra")
LONGEST_NAME = 128  # characters; limit of the server


class PointRun:
    """Logs a point's results; does nothing without a logger."""

    def __init__(self, run: Any, predictions: int) -> None:
        self._run, self._predictions = run, predictions

    def finish_point(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
        """Log metrics, scores of groups and tasks, and predictions."""
        if self._run is None:
            return
        with telling("log the scores"):
            self._run.log(self._numbers(metrics), commit=False)  # with the tables, at one step
        with telling("log the tables"):
            import wandb

            scores = [
                [kind, name, *(row[column] for column in SUMMARY)]
                for kind in ("group", "task")
                for name, row in metrics[f"{kind}s"].items()
            ]
            tables: dict[str, dict[str, Any]] = {"scores": {"columns": ["kind", "name", *SUMMARY], "data": scores}}
            if self._predictions:
                tables["predictions"] = predictions_table(records[: self._predictions])
            self._run.log({name: wandb.Table(**table, allow_mixed_types=True) for name, table in tables.items()})

    def _numbers(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        numbers |= {f"seconds/{kind}": spent for kind, spent in metrics["seconds"].items()}
        for kind in ("groups", "tasks"):
            for name, row in metrics[kind].items():
                if name and row["score"] is not None:
                    numbers[f"{kind}/{name}"] = row["score"]
        return {name: self._run.config["point"][name] for name in (*AXES, "prefill_gflops")} | numbers


@contextmanager
def point_run(config: DictConfig, folder: Path, described: Mapping[str, Any]) -> Iterator[PointRun]:
    """A run for the point of a folder, with the point's columns in tables (`described`) in its configuration.

    Raises ConfigError as wandb_run.
    """
    columns = {k: v for k, v in described.items() if v is None or isinstance(v, (str, int, float))}
    content = {**jsonable(config), "point": {"name": folder.name, **columns}}
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    with wandb_run(config, folder.parent, str(config.job.name), run_name(words, folder.name), content) as run:
        if run is not None:
            with telling("define the axes of plots"):
                for axis in AXES:
                    run.define_metric(axis)
                for name in SCORES:
                    run.define_metric(name, step_metric=AXES[0])
        yield PointRun(run, config.logger.get("predictions", 0))


def run_name(words: Sequence[str], default: str) -> str:
    """The overrides (`words`) that determine the point, pooling and frames first; `default` if none do, or too many."""

    def group(word: str) -> str:
        return word.lstrip("+~").split("=")[0].split(".")[0].split("/")[0]

    kept = [w for w in words if group(w) not in NOT_IN_NAMES and w.split("=")[0] not in ("job", "benchmark.root")]
    order = {"pooling": 0, "frames": 1}
    name = " ".join(sorted(kept, key=lambda word: order.get(group(word), len(order))))
    return name if name and len(name) <= LONGEST_NAME else default


def predictions_table(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns and rows of records; an IF_PRESENT column stands where any record has it."""
    columns = [*RECORD, *(name for name in IF_PRESENT if any(name in record for record in records))]
    return {"columns": columns, "data": [[record.get(name) for name in columns] for record in records]}


def log_norms(run: Any, folder: Path) -> None:
    """Log the norms of a point's folder."""
    with telling("log the norms"):
        import wandb

        saved = load_norms(folder)
        content: dict[str, Any] = {}
        for name, stage in saved.numbers["stages"].items():
            numbers = {key: stage[key] for key in NORMS} | {"median": stage["quantiles"]["0.5"]}
            numbers |= {f"outliers.{rule}": counted["share"] for rule, counted in stage["outliers"].items()}
            numbers[GAP] = stage[GAP]["share"]
            content |= {f"{name}/{key}": value for key, value in numbers.items() if value is not None}
            counts, edges = narrowed(saved.arrays[name]["histogram.counts"], saved.arrays[name]["histogram.edges"])
            if counts.size:
                content[f"{name}/norms"] = wandb.Histogram(np_histogram=(counts, edges))
        run.log(content)


def narrowed(counts: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A histogram without its empty ends; neighbouring bins are merged down to at most MOST_BINS."""
    filled = np.flatnonzero(counts)
    if not filled.size:
        return counts[:0], edges[:0]
    first, width = filled[0], filled[-1] - filled[0] + 1
    merged = -(-width // MOST_BINS)
    last = min(len(counts), first + -(-width // merged) * merged)
    starts = np.arange(first, last, merged)
    return np.add.reduceat(counts[:last], starts), np.append(edges[starts], edges[last])
