"""A study's points as one table."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from videopool.results.point import FAILURE, MANIFEST, METRICS, RECORDS, read_json
from videopool.results.records import OK, read_records

COLUMNS = (
    "point",
    "fingerprint",
    "status",
    "model",
    "pooling",
    "stage",
    "frames",
    "visual_tokens",
    "benchmark",
    "split",
    "n",
    "n_failed",
    "score",
    "ci_low",
    "ci_high",
    "prefill_gflops",
    "seconds_per_sample",
    "shared_seconds",
    "lora_alpha",
    "chance",
    "n_unparsed",
    "n_unscored",
    "same_map_as",
    "seed",
    "judge",
    "judge_grade",
    "prompt",
    "answer_words",
    "weights",
    "trained_pooling",
    "training_clips",
    "training_images",
    "training_examples",
    "training_steps",
    "training_tflops",
    "mixed",
)
TRAINING = ("clips", "images", "examples", "steps", "tflops")  # of what an export says of its training


def scored_points(study: str | Path) -> dict[Path, dict[str, object]]:
    """Manifests of a study's points by folder. What has no scores, as norms and trainings, is no point of the study."""
    manifests = {path.parent: read_json(path) for path in sorted(Path(study).glob(f"*/{MANIFEST}"))}
    return {folder: manifest for folder, manifest in manifests.items() if manifest is not None and "point" in manifest}


def load_study(study: str | Path) -> pd.DataFrame:
    """All points of a study's folder, one row each, ordered by pooling and frames.

    Columns: COLUMNS, then `score_<group>`, `ci_low_<group>`, `ci_high_<group>`, `chance_<group>`, `n_<group>`
    for each group of tasks, then `folder`. status is "complete", "failed" or "partial". Scores lie in 0..1.
    same_map_as names an earlier point whose pooling is the same map on the same frames. judge is the id of who graded
    open answers, None where nobody did. seconds_per_sample is the model's own time over all attempts, shared_seconds
    that of reading clips and of the vision tower, which a point spares those after it. answer_words is the mean length
    of generated answers, mixed tells in what the attempts that made a point's records differ; weights is the beginning
    of the hash of a checkpoint; what begins with training_ is what that says of its training.
    """
    rows = [_row(folder, manifest) for folder, manifest in scored_points(study).items()]
    table = pd.DataFrame(rows)
    for column in COLUMNS:
        if column not in table:
            table[column] = pd.Series(dtype=object)
    if rows:
        tokens = pd.to_numeric(table["visual_tokens"])  # unknown of a model behind an API
        table["order"] = -tokens.groupby(table["pooling"]).transform("max")
        table["base"] = table.model.str.replace(r" alpha \S+", "", regex=True)  # alphas are ordered as numbers
        for name in ("lora_alpha", "seed", *(f"training_{one}" for one in TRAINING)):
            table[name] = pd.to_numeric(table[name])
        table = table.sort_values(
            ["base", "benchmark", "lora_alpha", "stage", "order", "pooling", "frames", "training_clips", "seed"],
            kind="stable",
        )
        table["same_map_as"] = _duplicates(table)
    extra = [c for c in table.columns if c not in COLUMNS and c not in ("folder", "order", "signature", "base")]
    return table[[*COLUMNS, *sorted(extra), *(["folder"] if rows else [])]].reset_index(drop=True)


def _row(folder: Path, manifest: Mapping[str, object]) -> dict[str, object]:
    point = manifest["point"]
    assert isinstance(point, dict)
    row: dict[str, object] = {"point": folder.name, "fingerprint": manifest["fingerprint"], "folder": str(folder)}
    row |= {name: point.get(name) for name in ("model", "lora_alpha", "pooling", "stage", "frames", "visual_tokens")}
    row |= {name: point.get(name) for name in ("benchmark", "split", "prefill_gflops", "judge", "prompt")}
    identity = manifest.get("identity")
    row["seed"] = identity.get("seed") if isinstance(identity, dict) else None
    adapter = identity.get("adapter") if isinstance(identity, dict) else None
    row["weights"] = str(adapter.get("identity"))[:8] if isinstance(adapter, dict) else None
    pooling, training = point.get("trained_pooling"), point.get("training")
    row["trained_pooling"] = pooling.get("label") if isinstance(pooling, dict) else None
    row |= {f"training_{name}": training.get(name) if isinstance(training, dict) else None for name in TRAINING}
    mixed = manifest.get("mixed")
    row["mixed"] = ", ".join(f"{k} {' and '.join(v)}" for k, v in mixed.items()) if isinstance(mixed, dict) else None
    row["signature"] = str(point.get("map_signature"))
    metrics = read_json(folder / METRICS)
    if metrics is None:
        row["status"] = "failed" if (folder / FAILURE).exists() else "partial"
        statuses = [record["status"] for record in read_records(folder / RECORDS)]
        row["n"], row["n_failed"] = statuses.count(OK), len(statuses) - statuses.count(OK)
        return row
    row["status"] = "complete"
    for name in ("n", "n_failed", "n_unparsed", "n_unscored", "score", "ci_low", "ci_high", "chance", "judge_grade"):
        row[name] = metrics.get(name)
    row |= {name: metrics.get(name) for name in ("seconds_per_sample", "shared_seconds")}
    words = metrics.get("answer_words")
    row["answer_words"] = words["mean"] if isinstance(words, dict) else None
    groups = metrics.get("groups")
    for group, values in groups.items() if isinstance(groups, dict) else ():
        for name in ("score", "ci_low", "ci_high", "chance", "n"):
            row[f"{name}_{group}"] = values[name]
    return row


def _duplicates(table: pd.DataFrame) -> list[str | None]:
    seen: dict[tuple[object, ...], str] = {}
    found: list[str | None] = []
    for row in table.itertuples():
        asked = (str(row.judge), str(row.prompt), str(row.weights))
        key = (row.model, row.benchmark, row.stage, row.frames, row.seed, row.signature, *asked)
        found.append(seen.get(key))
        seen.setdefault(key, str(row.point))
    return found


def point_records(folder: str | Path) -> list[dict[str, object]]:
    """The records of a point."""
    return read_records(Path(folder) / RECORDS)


def scores_by_sample(folder: str | Path) -> dict[str, tuple[float, str, str]]:
    """Score, clip and task of each scored sample of a point, by sample id."""
    found: dict[str, tuple[float, str, str]] = defaultdict()
    for record in point_records(folder):
        if record["status"] == "ok" and record["score"] is not None:
            found[str(record["id"])] = (float(str(record["score"])), str(record["clip"]), str(record["task"]))
    return dict(found)


def task_weights(folder: str | Path) -> dict[str, float]:
    """Weights of tasks in a point's score; empty where every sample counts alike."""
    point = (read_json(Path(folder) / MANIFEST) or {}).get("point")
    weights = point.get("task_weights") if isinstance(point, dict) else None
    return {str(task): float(weight) for task, weight in weights.items()} if isinstance(weights, dict) else {}
