"""A study's points as one table."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import pandas as pd

from videopool.results.errors import ResultsError
from videopool.results.point import FAILURE, MANIFEST, METRICS, RECORDS, manifest_part, part_of, read_json
from videopool.results.records import OK, read_records

COLUMNS = (
    "point", "fingerprint", "status", "model", "pooling", "stage", "frames", "positions", "layout", "pruning",
    "visual_tokens", "benchmark", "split", "separators", "tokens_mean", "tokens_least", "tokens_most",
    "layer_mean_tokens", "n", "n_failed", "score", "ci_low", "ci_high", "prefill_gflops", "seconds_per_sample",
    "shared_seconds", "pool_seconds", "saliency_seconds", "pool_bytes",
    "lora_alpha", "chance", "n_unparsed", "n_unscored", "same_map_as", "seed", "judge", "judge_grade", "prompt",
    "answer_words", "weights", "trained_pooling", "training_clips", "training_images", "training_examples",
    "training_steps", "training_tflops", "mixed", "setting", "peak_memory_bytes", "device_peak_bytes",
    "device_reserved_bytes",
)  # fmt: skip
OF_POINT = (
    "model", "lora_alpha", "pooling", "stage", "frames", "positions", "layout", "pruning", "visual_tokens", "benchmark",
    "split", "prefill_gflops", "judge", "prompt", "separators",
)  # fmt: skip
OF_METRICS = (
    "tokens_mean", "tokens_least", "tokens_most", "layer_mean_tokens", "pool_seconds", "saliency_seconds", "pool_bytes",
    "n", "n_failed", "n_unparsed", "n_unscored", "score", "ci_low", "ci_high", "chance", "judge_grade",
    "seconds_per_sample", "shared_seconds", "peak_memory_bytes", "device_peak_bytes", "device_reserved_bytes",
)  # fmt: skip
OF_GROUP = ("score", "ci_low", "ci_high", "chance", "n")
TRAINING = ("clips", "images", "examples", "steps", "tflops")  # facts that an export keeps about its training
ORDER = (
    "base", "benchmark", "lora_alpha", "stage", "order", "pooling", "frames", "positions", "layout", "pruning",
    "training_clips", "seed",
)  # fmt: skip
SAME_MAP = (
    "model", "benchmark", "stage", "frames", "positions", "layout", "pruning", "seed", "signature", "judge", "prompt",
    "weights",
)  # fmt: skip
LABEL = (  # what a row says about its point; rows alike in all of it are told apart by their column `setting`
    "model", "lora_alpha", "pooling", "stage", "frames", "positions", "layout", "pruning", "benchmark", "split",
    "judge", "prompt", "seed", "trained_pooling", "training_clips", "training_images", "training_steps",
)  # fmt: skip
# Of a benchmark; its configuration says them in words.
HASHES = ("annotations", "samples", "groups", "headline", "average", "shuffle_options")
MOST_SETTINGS, LONGEST_VALUE = 3, 40  # that tell rows apart; letters
AXES = ("frames", "height", "width")
SHAPE_WORD = re.compile(r"\b[T\d]+x[H\d]+x[W\d]+\b")  # in labels of poolings: 16x12x12, Tx6x6


class Scored(NamedTuple):
    """A scored sample of a point."""

    score: float
    clip: str
    task: str


def scored_points(study: str | Path) -> dict[Path, dict[str, Any]]:
    """Manifests of a study's points, by folder. Norms and trainings have no scores and are not among them."""
    manifests = {path.parent: read_json(path) for path in sorted(Path(study).glob(f"*/{MANIFEST}"))}
    return {folder: manifest for folder, manifest in manifests.items() if manifest is not None and "point" in manifest}


def load_study(study: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All points of a study's folder, one row each, ordered by pooling and frames; `columns` chooses some.

    Columns: COLUMNS, then `score_<group>`, `ci_low_<group>`, `ci_high_<group>`, `chance_<group>`, `n_<group>` for each
    group of tasks, then `folder`. Scores lie in 0..1. status: "complete", "failed", "partial". same_map_as: an earlier
    point whose pooling is the same map on the same frames. positions: those of the visual tokens, "contiguous" or
    "original"; pruning: inside the language model, None if there is none. judge: id of the judge of open answers, or
    None. seconds_per_sample: the model alone, over all attempts; shared_seconds: reading clips and the vision tower,
    which later points save, of which saliency_seconds for the tower's attention; pool_seconds, pool_bytes: of pooling
    one clip. visual_tokens: as announced, or the mean where clips differ by their content; tokens_*: of the clips as
    read; layer_mean_tokens: those that a layer reads, on average. answer_words: mean length of generated answers.
    mixed: how the attempts behind a point's records differ. weights: first digits of the checkpoint's hash;
    trained_pooling, training_*: how it was trained. setting: of points that are otherwise alike in their names, the
    settings in which they differ, as "benchmark.clips=24". The points' records: load_records().

        from videopool.results import load_study
        table = load_study("results/quickstart")
        table[table.status == "complete"].pivot(index="pooling", columns="frames", values="score")
    """
    rows = [_row(folder, manifest) for folder, manifest in scored_points(study).items()]
    table = pd.DataFrame(rows)
    extra = sorted(set(table) - {*COLUMNS, "signature", "folder"})
    if rows:
        tokens = pd.to_numeric(table["visual_tokens"])  # unknown for a model behind an API
        for name in ("lora_alpha", "seed", *(f"training_{fact}" for fact in TRAINING)):
            table[name] = pd.to_numeric(table[name])
        order = -tokens.groupby(table["pooling"]).transform("max")
        base = table.model.str.replace(r" alpha \S+", "", regex=True)  # alphas are ordered as numbers, not in names
        keys = table.assign(order=order, base=base)
        table = table.loc[keys.sort_values(list(ORDER), kind="stable").index]
        earliest = table.groupby(list(SAME_MAP), dropna=False, sort=False).point.transform("first")
        table["setting"] = [settings.get(folder) for settings in [_telling_settings(table)] for folder in table.folder]
        known = (earliest != table.point) & table.seed.notna() & table.setting.isna()
        table["same_map_as"] = earliest.where(known, None)
    table = table.reindex(columns=[*COLUMNS, *extra, *["folder"] * bool(rows)]).reset_index(drop=True)
    if missing := [name for name in columns or () if name not in table]:
        raise ResultsError(f"{study}: no column {missing[0]!r}; there are {', '.join(table)}")
    return table if columns is None else table[list(columns)]


def _row(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    point, adapter = manifest["point"], part_of(part_of(manifest, "identity"), "adapter")
    row = {"point": folder.name, "fingerprint": manifest["fingerprint"], "folder": str(folder)}
    row |= {name: point.get(name) for name in OF_POINT}
    row |= {f"training_{name}": part_of(point, "training").get(name) for name in TRAINING}
    row |= {
        "positions": point.get("positions", "contiguous"),  # those of all points of earlier versions
        "layout": point.get("layout", "frames"),
        "seed": part_of(manifest, "identity").get("seed"),
        "weights": str(adapter["identity"])[:8] if "identity" in adapter else None,
        "trained_pooling": part_of(point, "trained_pooling").get("label"),
        "mixed": ", ".join(f"{k} {' and '.join(v)}" for k, v in part_of(manifest, "mixed").items()) or None,
        "signature": str(point.get("map_signature")),
    }
    metrics = read_json(folder / METRICS)
    if metrics is None:
        statuses = [record["status"] for record in read_records(folder / RECORDS)]
        answered = statuses.count(OK)
        status = "failed" if (folder / FAILURE).exists() else "partial"
        return row | {"status": status, "n": answered, "n_failed": len(statuses) - answered}
    row |= {"status": "complete", **{name: metrics.get(name) for name in OF_METRICS}}
    row |= {name: metrics[name] for name in ("visual_tokens", "prefill_gflops") if name in metrics}
    row["answer_words"] = part_of(metrics, "answer_words").get("mean")
    for group, values in part_of(metrics, "groups").items():
        row |= {f"{name}_{group}": values[name] for name in OF_GROUP}
    return row


def _telling_settings(table: pd.DataFrame) -> dict[str, str]:
    """The settings that tell points apart whose rows are alike, by folder."""
    told = {}
    for _, rows in table.groupby(list(LABEL), dropna=False, sort=False):
        if len(rows) > 1:
            own = {folder: _settings(folder) for folder in rows.folder}
            keys = dict.fromkeys(key for settings in own.values() for key in settings)
            unlike = [key for key in keys if len({str(settings.get(key)) for settings in own.values()}) > 1]
            for folder, digits in zip(rows.folder, rows.fingerprint, strict=True):
                words = [f"{key}={str(own[folder].get(key))[:LONGEST_VALUE]}" for key in unlike[:MOST_SETTINGS]]
                told[folder] = ", ".join(words) or f"fingerprint={str(digits)[:8]}"
    return told


def _settings(folder: str) -> dict[Any, Any]:
    """What determines a point's numbers, as flat settings; keys with dots. The configuration names its samples."""
    identity, config = manifest_part(folder, "identity"), manifest_part(folder, "config")
    asked = {key: value for key, value in part_of(config, "benchmark").items() if key not in ("groups", "root")}
    parts = {name: value for name, value in identity.items() if name not in HASHES} | {"benchmark": asked}
    return dict(pd.json_normalize(parts).to_dict("records")[0])


def point_records(folder: str | Path) -> list[dict[str, Any]]:
    """The records of a point."""
    return read_records(Path(folder) / RECORDS)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows, as to_dict("records") gives them in twice the time: wide tables have few rows."""
    values = ([None if value is pd.NA else value for value in column.tolist()] for _, column in table.items())
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*values, strict=True)]


def scores_by_sample(folder: str | Path) -> dict[str, Scored]:
    """The scored samples of a point, by sample id."""
    # The names are those of many points.
    return {
        intern(str(record["id"])): Scored(
            float(record["score"]), intern(str(record["clip"])), intern(str(record["task"]))
        )
        for record in point_records(folder)
        if record["status"] == OK and record["score"] is not None
    }


def task_weights(folder: str | Path) -> dict[str, float]:
    """Weights of tasks in a point's score; empty if all samples count alike."""
    weights = part_of(manifest_part(folder, "point"), "task_weights")
    return {str(task): float(weight) for task, weight in weights.items()}


def add_pooled_shapes(table: pd.DataFrame) -> pd.DataFrame:
    """The points of a study (load_study) whose pooling has windows along all three axes, with the shape after pooling.

    Adds `operator` (the pooling's label without the shape), `pooled_frames`, `pooled_height` and `pooled_width`. The
    shape is measured, not configured: a clip with fewer frames than asked for keeps them.
    """
    windows = [part_of(manifest_part(folder, "point"), "windows") for folder in table.get("folder", ())]
    pooled = [all(isinstance(own.get(axis), list) for axis in AXES) for own in windows]
    rows = table.loc[pooled].copy()
    rows["operator"] = [" ".join(SHAPE_WORD.sub("", str(label)).split()) for label in rows.pooling]
    for axis in AXES:
        rows[f"pooled_{axis}"] = [len(own[axis]) for own, kept in zip(windows, pooled, strict=True) if kept]
    return rows
