"""Points that differ in their seed alone, taken together."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from videopool.results.comparison import (
    Counts,
    headline_of,
    holm_by_benchmark,
    identity_of,
    trained_recipe,
    what_differs,
)
from videopool.results.fingerprint import fingerprint, without_seed
from videopool.results.seeds import mean_over_seeds
from videopool.results.statistics import DIFFERENCE, SCORE, Estimate, bound
from videopool.results.study import scores_by_sample, task_weights

SAME = (
    "model", "pooling", "stage", "frames", "visual_tokens", "benchmark", "judge", "lora_alpha", "trained_pooling",
    "training_clips", "training_images", "training_steps",
)  # fmt: skip
COLUMNS = (
    *SAME, "seeds", "points", "n", "score", "ci_low", "ci_high", "difference", "difference_low", "difference_high", "p",
    "p_holm",
)  # fmt: skip

Runs = dict[int, dict[str, tuple[float, str, str]]]  # by seed: score, clip and task of each sample


def over_seeds(table: pd.DataFrame, baseline: str, counts: Counts | None = None) -> pd.DataFrame:
    """Configurations that a study ran under several seeds, one row each; columns COLUMNS.

    Score and difference are means over seeds, with intervals for other seeds and other clips (mean_over_seeds). The
    difference is that from the baseline pooling at the same frames under the same seeds, seed by seed. Seeds whose
    points were not scored on the same samples as the others are no replicates, so such a configuration is left out.
    p_holm is corrected for all differences of a benchmark.

    Args:
        table: from load_study.
        baseline: a pooling's name.
        counts: which tasks count; None: those of each benchmark's headline.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        if row["status"] == "complete":
            groups.setdefault(_recipe(row), []).append({str(name): value for name, value in row.items()})
    kept = {key: runs for key, rows in groups.items() if (runs := _runs(rows, counts)) is not None}
    found = [_summary(groups[key], runs) for key, runs in kept.items()]
    compared = [_against(groups, kept, key, baseline) for key in kept]
    benchmarks = [row["benchmark"] for row in found]
    corrected = holm_by_benchmark(benchmarks, [None if one is None else one.p for one in compared])
    for row, one, p in zip(found, compared, corrected, strict=True):
        if one is not None:
            row |= {"difference": one.value, "difference_low": bound(one.low), "difference_high": bound(one.high)}
            row |= {"p": one.p, "p_holm": p}
    return pd.DataFrame(found, columns=list(COLUMNS))


def _recipe(row: Mapping[str, Any]) -> str:
    """What points that are replicates of each other have in common.

    A checkpoint that was trained anew under each seed counts by its recipe. One that does not say its recipe is like no
    other.
    """
    identity, recipe = without_seed(identity_of(row["folder"])), trained_recipe(row["folder"])
    if identity.get("adapter") and recipe is not None:
        identity["adapter"] = {**identity["adapter"], "identity": recipe}
    told = {name: None if pd.isna(row.get(name)) else row.get(name) for name in SAME if name != "model"}
    return fingerprint({"identity": identity, "told": told})


def _runs(rows: list[dict[str, Any]], counts: Counts | None) -> Runs | None:
    """Scores by seed; None unless there are several seeds, each once, on the same samples."""
    seeds = [row["seed"] for row in rows]
    if len(rows) < 2 or len(set(seeds)) < len(seeds) or any(pd.isna(seed) for seed in seeds):
        return None
    counts = counts or headline_of(rows[0]["folder"])
    runs = {
        int(row["seed"]): {i: one for i, one in scores_by_sample(row["folder"]).items() if counts(one[2])}
        for row in rows
    }
    first = next(iter(runs.values()))
    return runs if first and all(run.keys() == first.keys() for run in runs.values()) else None


def _estimate(
    rows: list[dict[str, Any]], runs: Mapping[int, Mapping[str, float]], told: Runs, bounds: tuple[float, float]
) -> Estimate:
    about = next(iter(told.values()))
    ids, weights = sorted(about), task_weights(rows[0]["folder"])
    tasks, clips = [about[i][2] for i in ids], [about[i][1] for i in ids]
    values = {seed: [run[i] for i in ids] for seed, run in runs.items()}
    return mean_over_seeds(values, clips, tasks, weights, bounds)


def _summary(rows: list[dict[str, Any]], runs: Runs) -> dict[str, Any]:
    scores = {seed: {i: one[0] for i, one in run.items()} for seed, run in runs.items()}
    estimate = _estimate(rows, scores, runs, SCORE)
    return {
        **{name: rows[0].get(name) for name in SAME},
        "seeds": ", ".join(map(str, sorted(runs))),
        "points": ", ".join(row["point"] for row in rows),
        "n": estimate.n,
        "score": estimate.value,
        "ci_low": bound(estimate.low),
        "ci_high": bound(estimate.high),
    }


def _against(
    groups: Mapping[str, list[dict[str, Any]]], kept: Mapping[str, Runs], key: str, baseline: str
) -> Estimate | None:
    """The difference from the baseline pooling under the same seeds; None if there is no such configuration.

    What is pooled as the baseline is compared with nothing. Of several, that which has most in common.
    """
    own, runs = groups[key][0], kept[key]
    if own["pooling"] == baseline:
        return None
    same = ("model", "benchmark", "frames", "stage", "judge")
    found = []
    for other, theirs in kept.items():
        row = groups[other][0]
        if other == key or row["pooling"] != baseline or theirs.keys() != runs.keys():
            continue
        alike = all(row[name] == own[name] or (pd.isna(row[name]) and pd.isna(own[name])) for name in same)
        if alike and next(iter(theirs.values())).keys() == next(iter(runs.values())).keys():
            found.append((len(what_differs(own, row)), theirs))
    if not found:
        return None
    _, theirs = min(found, key=lambda one: one[0])
    difference = {s: {i: one[0] - theirs[s][i][0] for i, one in run.items()} for s, run in runs.items()}
    return _estimate(groups[key], difference, runs, DIFFERENCE)
