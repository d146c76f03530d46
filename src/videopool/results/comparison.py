"""Points against each other, on the same samples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.results.errors import ResultsError
from videopool.results.fingerprint import without_later, without_seed
from videopool.results.flips import Flips, flips
from videopool.results.point import MANIFEST, read_json
from videopool.results.statistics import Estimate, bound, holm, paired_difference
from videopool.results.study import load_study, scores_by_sample, task_weights

Counts = Callable[[str], bool]

# Of two points' identities: what makes their scores mean different things, by its name in tables.
INCOMPARABLE = {"benchmark": "split", "judge": "judge", "headline": "headline"}
# What may differ, and then is said: it would explain a difference as well as pooling does.
TOLD = {
    "prompt": "prompt",
    "scoring": "scoring",
    "parsing": "parsing",
    "max_new_tokens": "answer length",
    "annotations": "annotations",
    "adapter": "adapter",
    "dtype": "dtype",
    "precision": "precision",
    "features": "features",
    "stage": "stage",
    "reader": "reader",
    "seed": "seed",
}
BUDGET = 0.05  # by how much the visual tokens of equal budgets may differ


@dataclass(frozen=True)
class Comparison:
    """Two points on the same samples.

    Attributes:
        difference: score of the first less the second's, with interval and p-value, clustered by clip.
        flips: who was right where; None for scores other than right and wrong.
        dropped: samples that only one of the two was scored on, and which fell out.
    """

    difference: Estimate
    flips: Flips | None
    dropped: int


def compare(
    first: str | Path, second: str | Path, counts: Counts = lambda task: True, intersect: bool = False
) -> Comparison:
    """Score of the first point minus the second's, paired by sample, clustered by clip.

    Args:
        first, second: folders of complete points.
        counts: which tasks are compared.
        intersect: compare on the samples that both were scored on, and say how many fell out.

    Raises:
        ResultsError: the two were not scored on the same samples, or by the same benchmark, split, headline and judge.
    """
    refuse_unlike(first, second)
    a, b = _scores(first, counts), _scores(second, counts)
    dropped = len(a.keys() ^ b.keys())
    if dropped and not intersect:
        raise ResultsError(
            f"{Path(first).name} and {Path(second).name} were not scored on the same samples: "
            f"{len(a.keys() - b.keys())} only in the first, {len(b.keys() - a.keys())} only in the second "
            "(intersect=true compares on those of both)"
        )
    ids = sorted(a.keys() & b.keys())
    if not ids:
        raise ResultsError(f"{Path(first).name} and {Path(second).name} have no scored samples to compare")
    one, other = ({i: values[i][0] for i in ids} for values in (a, b))
    clips, tasks = [a[i][1] for i in ids], [a[i][2] for i in ids]
    difference = paired_difference(list(one.values()), list(other.values()), clips, tasks, task_weights(first))
    return Comparison(difference, flips(one, other), dropped)


def _scores(folder: str | Path, counts: Counts) -> dict[str, tuple[float, str, str]]:
    return {sample: value for sample, value in scores_by_sample(folder).items() if counts(value[2])}


def identity_of(folder: str | Path) -> dict[str, Any]:
    """What determines a point's numbers, from its manifest, as it is hashed; empty if there is none."""
    identity = (read_json(Path(folder) / MANIFEST) or {}).get("identity")
    return without_later(identity) if isinstance(identity, dict) else {}


def trained_pooling(folder: str | Path) -> dict[str, Any] | None:
    """Settings of the pooling that a point's checkpoint was trained under, as far as it says."""
    return _told(folder, "trained_pooling")


def trained_recipe(folder: str | Path) -> str | None:
    """Hash of all but the seed that a point's checkpoint was trained under, if it says so."""
    return _told(folder, "trained_recipe")


def _unlike_training(folder: str | Path, other: str | Path) -> list[str]:
    """Names of what two trained points do not have in common beside the pooling, as far as both say."""
    one, two = _told(folder, "training"), _told(other, "training")
    if not (isinstance(one, dict) and isinstance(two, dict)):
        return []
    return [f"training {name}" for name in ("data", "steps") if one.get(name) != two.get(name)]


def _told(folder: str | Path, name: str) -> Any:
    point = (read_json(Path(folder) / MANIFEST) or {}).get("point")
    return point.get(name) if isinstance(point, dict) else None


def refuse_unlike(first: str | Path, second: str | Path) -> None:
    """Raises ResultsError for points whose scores are of different benchmarks, splits, headlines or judges."""
    one, other = identity_of(first), identity_of(second)
    for key, name in INCOMPARABLE.items():
        if one.get(key) != other.get(key):
            raise ResultsError(
                f"{Path(first).name} and {Path(second).name} cannot be compared: {name} {one.get(key) or 'none'} "
                f"is not {name} {other.get(key) or 'none'}"
            )


def what_differs(row: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what two comparable rows of load_study do not have in common, beside their pooling."""
    one, two = identity_of(row["folder"]), identity_of(other["folder"])
    names = ["frames"] if row["frames"] != other["frames"] else []
    names += ["sampler"] if _sampler(one) != _sampler(two) else []
    budgets = _tokens(row), _tokens(other)
    names += ["tokens"] if not (same_budget(*budgets) or all(map(math.isnan, budgets))) else []
    names += ["trained pooling"] if trained_pooling(row["folder"]) != trained_pooling(other["folder"]) else []
    names += _unlike_training(row["folder"], other["folder"])
    return names + [name for key, name in TOLD.items() if one.get(key) != two.get(key)]


def _sampler(identity: Mapping[str, Any]) -> dict[str, Any]:
    """How frames are chosen, whatever their number; without a seed that is the point's own."""
    frames = without_seed(identity).get("frames") or {}
    return {name: value for name, value in frames.items() if name != "num"}


def same_budget(tokens: float, other: float) -> bool:
    """Whether two numbers of visual tokens are within 5 % of each other."""
    return abs(tokens - other) <= BUDGET * max(tokens, other)


def add_differences(table: pd.DataFrame, baseline: str, counts: Counts | None = None) -> pd.DataFrame:
    """Add comparisons with a baseline to the complete points of a study.

    Two views, each with `baseline`, `difference`, `difference_low`, `difference_high`, `p`, `p_holm` and `differs`:
    at the same frames, and, their names beginning with `iso_token_`, at the same number of visual tokens (within 5 %).
    p_holm is corrected for all comparisons of the study on one benchmark, both views together, each pair of points
    counted once.
    `differs` says in what the two are unequal beside pooling.

    Args:
        table: from load_study.
        baseline: a pooling's name: each point is compared with that pooling; or a point's name: each is compared with
            that one, in the first view alone.
        counts: which tasks are compared; None: those of each benchmark's headline.
    """
    table = table.copy()
    complete = [row for row in table.to_dict("records") if row["status"] == "complete"]
    known: dict[tuple[str, str], Comparison | None] = {}

    def against(row: dict[str, Any], other: dict[str, Any]) -> Comparison | None:
        key = (str(row["folder"]), str(other["folder"]))
        if key not in known:
            try:
                known[key] = compare(*key, counts or headline_of(key[0]))
            except ResultsError:
                known[key] = None
        return known[key]

    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]] | None]] = {"": [], "iso_token_": []}
    for row in table.to_dict("records"):
        others = [o for o in complete if (o["benchmark"], o["model"]) == (row["benchmark"], row["model"])]
        for view, found in (("", _at_frames(row, others, baseline)), ("iso_token_", _at_tokens(row, others, baseline))):
            usable = row["status"] == "complete" and found is not None and found["point"] != row["point"]
            pairs[view].append((row, found) if usable and found is not None else None)
    for view, listed in pairs.items():
        columns = _columns([None if pair is None else (*pair, against(*pair)) for pair in listed])
        for name, values in columns.items():
            table[f"{view}{name}"] = pd.Series(values, index=table.index, dtype=object)
    benchmarks = {str(row["folder"]): row["benchmark"] for row in complete}
    families = [benchmarks[first] for first, _ in known]
    p_values = [None if comparison is None else comparison.difference.p for comparison in known.values()]
    corrected = dict(zip(known, holm_by_benchmark(families, p_values), strict=True))
    for view, listed in pairs.items():
        values = [pair and corrected.get((str(pair[0]["folder"]), str(pair[1]["folder"]))) for pair in listed]
        table[f"{view}p_holm"] = pd.Series(values, index=table.index, dtype=object)
    return table


def headline_of(folder: str | Path) -> Counts:
    """Which tasks count towards a point's score."""
    tasks = set(identity_of(folder).get("headline") or ())
    return lambda task: not tasks or task in tasks


def holm_by_benchmark(benchmarks: Sequence[object], p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for how many there are on the same benchmark."""
    found: list[float | None] = [None] * len(p_values)
    for benchmark in dict.fromkeys(benchmarks):
        places = [place for place, own in enumerate(benchmarks) if own == benchmark]
        for place, p in zip(places, holm([p_values[place] for place in places]), strict=True):
            found[place] = p
    return found


def compared_study(study: str | Path, baseline: str) -> pd.DataFrame:
    """All points of a study as load_study has them, with add_differences over the tasks of each benchmark's headline.

    Args:
        study: its folder.
        baseline: a pooling or a point, as add_differences takes it.

    Raises:
        ResultsError: there is no such study, or it has no points.
    """
    if not Path(study).is_dir():
        raise ResultsError(f"there is no study {study}")
    table = load_study(study)
    if table.empty:
        raise ResultsError(f"{study} holds no points")
    return add_differences(table, baseline)


def _at_frames(row: dict[str, Any], others: list[dict[str, Any]], baseline: str) -> dict[str, Any] | None:
    """The point that a baseline names, or its pooling's at as many frames."""
    named = [other for other in others if other["point"] == baseline]
    like = [o for o in others if o["pooling"] == baseline and o["frames"] == row["frames"]]
    return next(iter(named or _closest(row, like)), None)


def _at_tokens(row: dict[str, Any], others: list[dict[str, Any]], baseline: str) -> dict[str, Any] | None:
    """The baseline pooling's point with the closest number of visual tokens, if that is close enough."""
    like = [o for o in others if o["pooling"] == baseline]
    like = [o for o in like if same_budget(_tokens(o), _tokens(row))]
    return next(iter(_closest(row, like)), None)


def _closest(row: dict[str, Any], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points ordered by whether one can be compared with them, by what they have in common, and by tokens."""

    def distance(other: dict[str, Any]) -> tuple[bool, int, float]:
        unlike = bool(_unlike_by_identity(row, other))
        apart = abs(_tokens(other) - _tokens(row))
        return unlike, len(what_differs(row, other)), 0.0 if math.isnan(apart) else apart

    return sorted(others, key=distance)


def _columns(
    compared: list[tuple[dict[str, Any], dict[str, Any], Comparison | None] | None],
) -> dict[str, list[object]]:
    names = ("baseline", "difference", "difference_low", "difference_high", "p", "differs")
    found: dict[str, list[object]] = {name: [] for name in names}
    for entry in compared:
        values: tuple[object, ...] = (None,) * len(names)
        if entry is not None:
            row, other, comparison = entry
            differs = what_differs(row, other)
            if comparison is None:
                values = (other["point"], None, None, None, None, ", ".join([*_unlike(row, other), *differs]))
            else:
                d = comparison.difference
                values = (other["point"], d.value, bound(d.low), bound(d.high), d.p, ", ".join(differs))
        for name, value in zip(names, values, strict=True):
            found[name].append(value)
    return found


def _unlike(row: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why two points could not be compared."""
    return _unlike_by_identity(row, other) or ["samples"]


def _unlike_by_identity(row: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    one, two = identity_of(row["folder"]), identity_of(other["folder"])
    return [name for key, name in INCOMPARABLE.items() if one.get(key) != two.get(key)]


def _tokens(row: Mapping[str, Any]) -> float:
    """Visual tokens; NaN where only a server knows them."""
    return float("nan") if row["visual_tokens"] is None else float(row["visual_tokens"])
