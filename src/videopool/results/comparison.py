"""Points against each other, on the same samples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from operator import eq
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.results.errors import ResultsError
from videopool.results.fingerprint import without_later, without_seed
from videopool.results.point import manifest_part, part_of
from videopool.results.statistics import Estimate, holm, paired_difference
from videopool.results.study import Scored, load_study, rows_of, scores_by_sample, task_weights

Counts = Callable[[str], bool]
Row = Mapping[str, Any]  # of load_study
Reader = Callable[[str | Path], Mapping[str, Scored]]  # of a point's scored samples

ALL_TASKS = "all"  # the row of all tasks that count towards the score
# Parts of an identity that give scores another meaning.
INCOMPARABLE = ("benchmark", "judge", "headline", "average")
# Parts that may differ and are then reported: they may explain a difference as well as pooling does.
REPORTED = (
    "prompt", "scoring", "parsing", "max_new_tokens", "annotations", "adapter", "dtype", "precision", "features",
    "stage", "positions", "layout", "pruning", "tower", "reader", "seed", "shuffle_options",
)  # fmt: skip
WORDS = {
    "benchmark": "split",
    "max_new_tokens": "answer length",
    "shuffle_options": "order of options",
}  # names of parts in tables, where others
MOST_READ = 100  # points whose scores are kept while a study's are compared: 2 MB each, of 13,000 samples
BUDGET = 0.05  # largest relative difference of equal budgets of visual tokens
VIEWS = ("", "iso_token_")


@dataclass(frozen=True)
class Flips:
    """Samples by correctness: McNemar's view of two accuracies."""

    both: int  # samples that both points answered correctly
    neither: int
    first: tuple[str, ...]  # ids of samples that only the first answered correctly
    second: tuple[str, ...]

    @property
    def p(self) -> float:
        """P-value of the exact McNemar test (Psychometrika 12, 1947), which assumes independent samples.

        Questions about one clip are not independent: the p-value to quote is the one clustered by clip.
        """
        n, fewer = len(self.first) + len(self.second), min(len(self.first), len(self.second))
        return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def flips(first: Mapping[str, float], second: Mapping[str, float]) -> Flips | None:
    """Flips between two points' scores of the same samples, by sample id; None if a score is neither 0 nor 1."""
    if not {*first.values(), *second.values()} <= {0.0, 1.0}:
        return None
    pairs = [(first[name], second[name], name) for name in sorted(first)]
    return Flips(
        both=sum(a == b == 1 for a, b, _ in pairs),
        neither=sum(a == b == 0 for a, b, _ in pairs),
        first=tuple(name for a, b, name in pairs if a > b),
        second=tuple(name for a, b, name in pairs if a < b),
    )


@dataclass(frozen=True)
class Comparison:
    """Two points on the same samples."""

    difference: Estimate  # score of the first less the second's, clustered by clip
    flips: Flips | None  # None for scores other than right and wrong
    dropped: int  # samples with a score in only one of the two, left out
    p_holm: float | None = None  # of one of several tasks, corrected for their number


def compare(
    first: str | Path,
    second: str | Path,
    counts: Counts = lambda task: True,
    intersect: bool = False,
    read: Reader = scores_by_sample,
) -> Comparison:
    """Score of the first point (a folder) minus the second's, paired by sample, clustered by clip.

    counts: which tasks are compared. intersect: compare on the samples scored in both, and count the dropped ones.
    read: the points' scores. Raises ResultsError if the two points have other scored samples, benchmarks, splits,
    headlines or judges.
    """
    names = f"{Path(first).name} and {Path(second).name}"
    ours, theirs = identity_of(first), identity_of(second)
    for key in INCOMPARABLE:
        if (mine := ours.get(key)) != (other := theirs.get(key)):
            word = WORDS.get(key, key)
            raise ResultsError(f"{names} cannot be compared: {word} {mine or 'none'} is not {word} {other or 'none'}")
    a, b = counted_scores(first, counts, read), counted_scores(second, counts, read)
    dropped = len(a.keys() ^ b.keys())
    if dropped and not intersect:
        raise ResultsError(
            f"{names} were not scored on the same samples: {len(a.keys() - b.keys())} only in the first, "
            f"{len(b.keys() - a.keys())} only in the second (intersect=true compares on those of both)"
        )
    ids = sorted(a.keys() & b.keys())
    if not ids:
        raise ResultsError(f"{names} have no scored samples to compare")
    first_scores, second_scores = ({i: scores[i].score for i in ids} for scores in (a, b))
    clips, tasks = [a[i].clip for i in ids], [a[i].task for i in ids]
    pairs = list(first_scores.values()), list(second_scores.values())
    difference = paired_difference(*pairs, clips, tasks, task_weights(first))
    return Comparison(difference, flips(first_scores, second_scores), dropped)


def counted_scores(folder: str | Path, counts: Counts, read: Reader = scores_by_sample) -> dict[str, Scored]:
    """Scored samples of the tasks that count, by sample id."""
    return {sample: scored for sample, scored in read(folder).items() if counts(scored.task)}


def identity_of(folder: str | Path) -> dict[str, Any]:
    """A point's identity as it is hashed, from its manifest; {} if there is none."""
    return dict(without_later(manifest_part(folder, "identity")))


def headline_of(folder: str | Path) -> Counts:
    """Which tasks count towards a point's score."""
    tasks = set(identity_of(folder).get("headline") or ())
    return lambda task: not tasks or task in tasks


def _unequal(first: Mapping[str, Any], second: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [WORDS.get(key, key) for key in keys if first.get(key) != second.get(key)]


def _unlike(row: Row, other: Row) -> list[str]:
    """Why the scores of two points have different meanings."""
    return _unequal(identity_of(row["folder"]), identity_of(other["folder"]), INCOMPARABLE)


def what_differs(row: Row, other: Row) -> list[str]:
    """Names of the settings besides pooling in which two comparable points differ."""
    identity, reference = identity_of(row["folder"]), identity_of(other["folder"])
    ours, theirs = manifest_part(row["folder"], "point"), manifest_part(other["folder"], "point")
    trained = part_of(ours, "training"), part_of(theirs, "training")
    budgets = _tokens(row), _tokens(other)
    differs = {
        "frames": row["frames"] != other["frames"],
        "sampler": _sampler(identity) != _sampler(reference),
        "tokens": not (same_budget(*budgets) or all(map(math.isnan, budgets))),
        "trained pooling": ours.get("trained_pooling") != theirs.get("trained_pooling"),
    }
    names = [name for name, unequal in differs.items() if unequal]
    if all(trained):
        names += [f"training {name}" for name in _unequal(*trained, ("data", "steps"))]
    return names + _unequal(identity, reference, REPORTED)


def _sampler(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the sampler but the number of frames, and but a seed that follows the point's."""
    return {name: value for name, value in (without_seed(identity).get("frames") or {}).items() if name != "num"}


def _tokens(row: Row) -> float:
    """Visual tokens; NaN if only a server knows them."""
    return float("nan") if row["visual_tokens"] is None else float(row["visual_tokens"])


def same_budget(tokens: float, other: float) -> bool:
    """Whether two numbers of visual tokens are within 5 % of each other."""
    return abs(tokens - other) <= BUDGET * max(tokens, other)


def called(rows: Sequence[Row], pooling: str) -> list[Row]:
    """Rows of a pooling; without any, of those whose names are it and a budget: `even` stands for `even 0.25`."""
    return [row for row in rows if row["pooling"] == pooling] or [
        row for row in rows if str(row["pooling"]).startswith(f"{pooling} ")
    ]


def add_differences(table: pd.DataFrame, baseline: str, counts: Counts | None = None) -> pd.DataFrame:
    """Add comparisons with a baseline to the complete points of a study, a table from load_study.

    Two views, each with `baseline`, `difference`, `difference_low`, `difference_high`, `p`, `p_holm` and `differs`: at
    the same frames, and, with the prefix `iso_token_`, at the same number of visual tokens (within 5 %). p_holm is
    corrected for all comparisons on one benchmark, both views together, each pair of points counted once. `differs`
    names the unequal settings besides pooling.

    baseline: the name of a pooling (see called()), or of a point, which counts in the first view alone. counts: which
    tasks are compared; None: those of each benchmark's headline.
    """
    rows = rows_of(table)
    complete = [row for row in rows if row["status"] == "complete"]
    known: dict[tuple[str, str], Comparison | None] = {}
    read = lru_cache(MOST_READ)(scores_by_sample)
    cells: dict[str, list[dict[str, Any]]] = {view: [] for view in VIEWS}
    for row in rows:
        others = [o for o in complete if (o["benchmark"], o["model"]) == (row["benchmark"], row["model"])]
        for view in VIEWS:
            other = _partner(row, others, baseline, view) if row["status"] == "complete" else None
            cells[view].append({})
            if other is None or other["point"] == row["point"]:
                continue
            pair = (str(row["folder"]), str(other["folder"]))
            if pair not in known:
                try:
                    known[pair] = compare(*pair, counts or headline_of(pair[0]), read=read)
                except ResultsError:
                    known[pair] = None
            cells[view][-1] = {"pair": pair, **_compared(row, other, known[pair])}
    benchmarks = {str(row["folder"]): row["benchmark"] for row in complete}
    p_values = [None if comparison is None else comparison.difference.p for comparison in known.values()]
    corrected = dict(zip(known, holm(p_values, [benchmarks[first] for first, _ in known]), strict=True))
    columns: dict[str, list[Any]] = {}
    for view, own in cells.items():
        for name in ("baseline", "difference", "difference_low", "difference_high", "p", "differs"):
            columns[f"{view}{name}"] = [cell.get(name) for cell in own]
    for view, own in cells.items():
        columns[f"{view}p_holm"] = [corrected[cell["pair"]] if cell else None for cell in own]
    return table.assign(**{n: pd.Series(values, index=table.index, dtype=object) for n, values in columns.items()})


def _partner(row: Row, others: Sequence[Row], baseline: str, view: str) -> Row | None:
    """The point to compare with: the one that the baseline names, or its pooling at as many frames or tokens."""
    named = [other for other in others if other["point"] == baseline]
    if named and not view:
        return named[0]

    def distance(other: Row) -> tuple[bool, int, float]:
        apart = abs(_tokens(other) - _tokens(row))
        return bool(_unlike(row, other)), len(what_differs(row, other)), 0.0 if math.isnan(apart) else apart

    def alike(other: Row) -> bool:
        return same_budget(_tokens(other), _tokens(row)) if view else other["frames"] == row["frames"]

    return min(filter(alike, called(others, baseline)), key=distance, default=None)


def _compared(row: Row, other: Row, comparison: Comparison | None) -> dict[str, Any]:
    """Cells of one view; None stands for two points that cannot be compared."""
    differs, numbers = what_differs(row, other), {}
    if comparison is None:
        differs = [*(_unlike(row, other) or ["samples"]), *differs]
    else:
        numbers = {**comparison.difference.named("difference"), "p": comparison.difference.p}
    return {"baseline": other["point"], **numbers, "differs": ", ".join(differs)}


def compared_study(study: str | Path, baseline: str) -> pd.DataFrame:
    """Points of a study (load_study) with add_differences. Raises ResultsError without a study, or without points."""
    if not Path(study).is_dir():
        raise ResultsError(f"there is no study {study}")
    table = load_study(study)
    if table.empty:
        raise ResultsError(f"{study} holds no points")
    return add_differences(table, baseline)


def compare_by_task(first: str | Path, second: str | Path, intersect: bool = False) -> dict[str, Comparison]:
    """Comparisons of two points, as by compare, over the headline (ALL_TASKS), then by task if there are several."""
    comparisons = {ALL_TASKS: compare(first, second, headline_of(first), intersect)}
    ours, theirs = ({scored.task for scored in scores_by_sample(folder).values()} for folder in (first, second))
    tasks = sorted(ours & theirs)
    if len(tasks) > 1:
        by_task = [compare(first, second, partial(eq, task), intersect) for task in tasks]
        for task, own, p in zip(tasks, by_task, holm([own.difference.p for own in by_task]), strict=True):
            comparisons[task] = replace(own, p_holm=p)
    return comparisons


def by_task_table(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Comparisons of two points from compare_by_task as a table, one row per task.

    Columns: task, n, clips, difference, difference_low, difference_high, p, p_holm (None for ALL_TASKS), only_first and
    only_second (samples that only one point got right; None for scores other than right and wrong), dropped.
    """
    return pd.DataFrame(
        {
            "task": task, "n": c.difference.n, "clips": c.difference.clusters, **c.difference.named("difference"),
            "p": c.difference.p, "p_holm": c.p_holm,
            "only_first": None if c.flips is None else len(c.flips.first),
            "only_second": None if c.flips is None else len(c.flips.second),
            "dropped": c.dropped,
        }
        for task, c in comparisons.items()
    )  # fmt: skip
