"""Points that differ in their seed alone, taken together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from videopool.results.comparison import Counts, called, counted_scores, headline_of, identity_of, what_differs
from videopool.results.fingerprint import fingerprint, without_seed
from videopool.results.point import manifest_part
from videopool.results.statistics import DIFFERENCE, SCORE, Estimate, holm, mean_over_seeds
from videopool.results.study import rows_of, task_weights

SAME = (
    "model", "pooling", "stage", "frames", "positions", "layout", "pruning", "visual_tokens", "benchmark", "judge",
    "lora_alpha", "trained_pooling",
    "training_clips", "training_images", "training_steps",
)  # fmt: skip
COLUMNS = (
    *SAME, "seeds", "points", "n", "score", "ci_low", "ci_high", "difference", "difference_low", "difference_high", "p",
    "p_holm",
)  # fmt: skip
AS_BASELINE = ("model", "benchmark", "frames", "stage", "judge")  # shared with the baseline pooling's configuration


@dataclass(frozen=True)
class _Replicates:
    """The rows of one configuration, its scores by sample id and seed, and each sample's clip and task."""

    rows: Sequence[Mapping[Any, Any]]
    scores: pd.DataFrame
    clips: Sequence[str]
    tasks: Sequence[str]

    def estimate(self, baseline: "_Replicates | None" = None) -> Estimate:
        """Mean score over seeds, or mean difference from a baseline, seed by seed."""
        scores = self.scores if baseline is None else self.scores - baseline.scores
        bounds = SCORE if baseline is None else DIFFERENCE
        weights = task_weights(self.rows[0]["folder"])
        return mean_over_seeds(scores.to_dict("list"), self.clips, self.tasks, weights, bounds)


def over_seeds(table: pd.DataFrame, baseline: str, counts: Counts | None = None) -> pd.DataFrame:
    """Configurations that a study ran under several seeds, one row each; columns COLUMNS.

    Score and difference are means over seeds, with intervals for other seeds and other clips (mean_over_seeds). The
    difference is from the baseline pooling at the same frames under the same seeds, seed by seed. A configuration whose
    seeds were scored on different samples is left out. p_holm is corrected for all differences on a benchmark.

    table: from load_study. counts: which tasks count; None: those of each benchmark's headline.
    """
    groups: dict[str, list[dict[Any, Any]]] = {}
    for row in rows_of(table):
        if row["status"] == "complete":
            groups.setdefault(_recipe(row), []).append(row)
    configurations = [own for rows in groups.values() if (own := _replicates(rows, counts)) is not None]
    rows = []
    for own in configurations:
        first, score = own.rows[0], own.estimate()
        row = {name: first.get(name) for name in SAME}
        row |= {"seeds": ", ".join(map(str, own.scores)), "points": ", ".join(r["point"] for r in own.rows)}
        row |= {"n": score.n, **score.named("score", "ci_low", "ci_high")}
        if (other := _baseline(own, configurations, baseline)) is not None:
            difference = own.estimate(other)
            row |= {**difference.named("difference"), "p": difference.p}
        rows.append(row)
    corrected = holm([row.get("p") for row in rows], [row["benchmark"] for row in rows])
    return pd.DataFrame([{**row, "p_holm": p} for row, p in zip(rows, corrected, strict=True)], columns=list(COLUMNS))


def _recipe(row: Mapping[Any, Any]) -> str:
    """Fingerprint of what replicates share. Checkpoints trained anew per seed count by their recipe, if it is known."""
    identity = without_seed(identity_of(row["folder"]))
    recipe = manifest_part(row["folder"], "point").get("trained_recipe")
    if identity.get("adapter") and recipe is not None:
        identity["adapter"] = {**identity["adapter"], "identity": recipe}
    settings = {name: None if pd.isna(row.get(name)) else row.get(name) for name in SAME if name != "model"}
    return fingerprint({"identity": identity, "settings": settings})


def _replicates(rows: list[dict[Any, Any]], counts: Counts | None) -> _Replicates | None:
    """None unless there are several seeds, each once, on the same samples."""
    seeds = [row["seed"] for row in rows]
    if len(rows) < 2 or len(set(seeds)) < len(seeds) or any(pd.isna(seed) for seed in seeds):
        return None
    counts = counts or headline_of(rows[0]["folder"])
    runs = {int(row["seed"]): counted_scores(row["folder"], counts) for row in rows}
    samples = next(iter(runs.values()))  # ids, clips and tasks are the same for all seeds
    if not samples or any(run.keys() != samples.keys() for run in runs.values()):
        return None
    ids = sorted(samples)
    scores = pd.DataFrame({seed: [runs[seed][i].score for i in ids] for seed in sorted(runs)}, index=ids)
    return _Replicates(rows, scores, [samples[i].clip for i in ids], [samples[i].task for i in ids])


def _baseline(own: _Replicates, others: Sequence[_Replicates], baseline: str) -> _Replicates | None:
    """The baseline pooling's configuration under the same seeds: of several, the most similar. None for itself."""
    row = own.rows[0]
    named = {str(one["point"]) for one in called([other.rows[0] for other in others], baseline)}

    def fits(other: _Replicates) -> bool:
        theirs = other.rows[0]
        alike = all(theirs[n] == row[n] or (pd.isna(theirs[n]) and pd.isna(row[n])) for n in AS_BASELINE)
        same = all(map(pd.Index.equals, other.scores.axes, own.scores.axes))  # seeds and samples
        return theirs["point"] in named and alike and same

    fitting = [] if row["point"] in named else [other for other in others if fits(other)]
    return min(fitting, key=lambda other: len(what_differs(row, other.rows[0])), default=None)
