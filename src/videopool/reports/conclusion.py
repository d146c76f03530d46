"""The conclusion of a study in a few sentences, computed from its table."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from videopool.reports.cells import missing, percent_text
from videopool.reports.columns import COMPLETE, main_group, other_groups, point_labels
from videopool.reports.headline import headline_pair
from videopool.results import ResultsError, compare
from videopool.results.comparison import headline_of
from videopool.results.statistics import ALPHA
from videopool.results.study import rows_of

VIEWS = {"": "at equal frames", "iso_token_": "at equal tokens"}
NUMBERS = ("difference", "difference_low", "difference_high", "p_holm")
MOST_BENCHMARKS, MOST_NAMES = 3, 3  # with sentences of their own; points named in one sentence
LEAST_P = 0.0001  # the smallest p-value that is written


class Difference(NamedTuple):
    """A point's difference from its baseline; bounds and corrected p-value are missing without an interval."""

    name: str  # of the point, in words
    value: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def text(self) -> str:
        """In percentage points, with the interval."""
        interval = "" if missing(self.low) else f" [{_signed(self.low)}, {_signed(self.high)}]"
        return f"{_signed(self.value)} points{interval}"


def conclusion(frame: pd.DataFrame, baseline: str, seeds: pd.DataFrame | None = None, headline: str = "") -> list[str]:
    """Sentences: what is complete, the headline, the best score, differences from the baseline, what has no score.

    frame: from add_differences; seeds: from over_seeds, whose differences replace those of single points at equal
    frames. headline: from the study's file. Differences are in percentage points with 95 % intervals, and count if
    their p-value after Holm's correction is below 5 %.
    """
    complete, names = frame[frame.status == COMPLETE], _names(frame)
    sentences = list(_completeness(frame))
    if pair := headline_pair(headline, complete):
        sentences.append(_headline(complete, pair, names))
    benchmarks = list(complete.groupby("benchmark", sort=False))
    for benchmark, rows in benchmarks[:MOST_BENCHMARKS]:
        replicated = pd.DataFrame() if seeds is None else seeds[seeds.benchmark == benchmark]
        start = f"On {benchmark}: " if len(benchmarks) > 1 else ""
        sentences += [f"{start}{sentence}" for sentence in _benchmark(rows, baseline, replicated, names)]
    if len(benchmarks) > MOST_BENCHMARKS:
        sentences.append(f"The tables show {_count(len(benchmarks) - MOST_BENCHMARKS, 'more benchmark')}.")
    return sentences + list(_without_score(complete))


def _benchmark(rows: pd.DataFrame, baseline: str, seeds: pd.DataFrame, names: Mapping[str, str]) -> Iterator[str]:
    """Sentences about the complete points of one benchmark."""
    scored = rows[rows.score.notna()]
    if scored.empty:
        yield "No answer has a score: there are no reference answers, or no judge."
        return
    yield _best(scored, names)
    maps = dict(zip(rows.point, rows.same_map_as.where(rows.same_map_as.notna(), rows.point), strict=True))
    alike, pairs, views = set[str](), set[tuple[str, str]](), dict[str, list[Difference]]()
    for view, words in VIEWS.items():
        compared = rows[rows[f"{view}difference"].notna()]
        tested = compared[compared[f"{view}p_holm"].notna()]
        pairs |= set(zip(tested.point, tested[f"{view}baseline"], strict=True))
        same = compared.point.map(maps) == compared[f"{view}baseline"].map(maps)
        alike |= {names[point] for point in compared.point[same]}
        views[words] = _differences(compared[~same], names, view)
    families = dict.fromkeys(views, len(pairs))  # Holm corrects for both views together, and for seeds by themselves
    if len(seeds) and seeds.difference.notna().any():
        replicates = seeds[seeds.difference.notna()].assign(point=seeds.points)
        own = {f"over seeds, {VIEWS['']}": _differences(replicates, _names(replicates))}
        views = {**own, VIEWS["iso_token_"]: views[VIEWS["iso_token_"]]}
        families |= {words: len(found) for words, found in own.items()}
    for words, differences in views.items():
        if differences:
            yield _view(words.capitalize(), differences, baseline, families[words])
    if len(scored) == 1:
        yield "There is no other point to compare it with."
    elif not alike and not any(views.values()):
        problem = f"No complete point can be compared with the baseline ({baseline})"
        yield f"{problem}; baseline=... names another pooling or point."
    yield from _untold(views)
    if alike:
        yield f"The same as the baseline is computed by {_listed(sorted(alike))}."
    reasons = [row["differs"] for row in rows_of(rows) if row["baseline"] and missing(row["difference"])]
    if reasons:
        yield f"{_count(len(reasons), 'point')} cannot be compared with the baseline: unequal {_listed(reasons)}."


def _differences(rows: pd.DataFrame, names: Mapping[str, str], view: str = "") -> list[Difference]:
    """The differences of one view, of rows that have one."""
    numbers = rows[[f"{view}{name}" for name in NUMBERS]].to_numpy().tolist()
    return [Difference(names[point], *own) for point, own in zip(rows.point, numbers, strict=True)]


def _view(words: str, differences: list[Difference], baseline: str, family: int) -> str:
    """How many points differ from the baseline, and the largest difference."""
    tested = [own for own in differences if not missing(own.p)]
    if not tested:
        largest = max(differences, key=lambda own: abs(own.value))
        start = f"{words}, the largest difference from the baseline ({baseline}) is {largest.text}, {largest.name}"
        return f"{start}; with fewer than 10 clips there are no intervals, and nothing can be told apart."
    found = [own for own in tested if own.p is not None and own.p < ALPHA]
    text = f"{words}, {len(found)} of {_count(len(tested), 'comparison')} with the baseline ({baseline})"
    text += f" show{'s' * (len(found) == 1)} a difference after Holm's correction for {family}"
    if found:
        higher = sum(own.value > 0 for own in found)
        kinds = [f"{n} {word}" for n, word in ((higher, "higher"), (len(found) - higher, "lower")) if n]
        largest = max(found, key=lambda own: abs(own.value))
        text += f": {', '.join(kinds)}, the largest {largest.text} for {largest.name}"
    return f"{text}."


def _untold(views: Mapping[str, list[Difference]]) -> Iterator[str]:
    """The points that cannot be told apart from the baseline, and where their intervals lie."""
    untold = {words: [own for own in every if own.p is not None and own.p >= ALPHA] for words, every in views.items()}
    places = [f"{_listed(own.name for own in every)} {words}" for words, every in untold.items() if every]
    bounds = [bound for every in untold.values() for own in every for bound in (own.low, own.high) if bound is not None]
    if places:
        reach = f"their intervals lie within {_signed(min(bounds))} and {_signed(max(bounds))} points"
        yield f"Not told apart from the baseline: {'; '.join(places)} ({reach})."


def _headline(complete: pd.DataFrame, pair: tuple[str, str], names: Mapping[str, str]) -> str:
    """The difference of the headline's two points, with the table's p-value if it compares them."""
    start = f"The headline, {names[pair[0]]} minus {names[pair[1]]}"
    rows = complete.set_index("point").loc[list(pair)]
    first, second = rows.folder
    try:
        own = compare(first, second, headline_of(first)).difference
    except ResultsError as error:
        return f"{start}, has no difference: {error}."
    held = [row[f"{v}p_holm"] for row in [rows.iloc[0]] for v in VIEWS if row[f"{v}baseline"] == pair[1]]
    low, high = (None if np.isnan(bound) else bound for bound in (own.low, own.high))
    difference = Difference("", own.value, low, high, held[0] if held else own.p)
    main = _main_tasks(complete[complete.benchmark == rows.benchmark.iloc[0]])
    text = f"{start}, is {difference.text}{main}"
    if difference.p is None or missing(difference.p):
        return f"{text}; fewer than 10 clips give no interval."
    p = f"p < {LEAST_P}" if difference.p < LEAST_P else f"p = {difference.p:.2g}"
    kind = "after Holm's correction" if held else "by itself"
    apart = "" if difference.p < ALPHA else ": the two cannot be told apart"
    return f"{text} ({p} {kind}){apart}."


def _best(scored: pd.DataFrame, names: Mapping[str, str]) -> str:
    row = scored.loc[scored.score.astype(float).idxmax()]
    interval = "" if missing(row.ci_low) else f" [{percent_text(row.ci_low)}, {percent_text(row.ci_high)}]"
    chance = "" if missing(row.chance) else f" (chance: {percent_text(row.chance)} %)"
    best = f"{percent_text(row.score)} %{interval}{chance}, of {names[row.point]}"
    return f"The highest score{_main_tasks(scored)} is {best}."


def _main_tasks(scored: pd.DataFrame) -> str:
    """The group of tasks that scores are of, if there are others."""
    main = main_group(scored) if other_groups(scored) else ""
    return f" on {main} tasks" if main else ""


def _completeness(frame: pd.DataFrame) -> Iterator[str]:
    counts = Counter(frame.status)
    rest = {"failed": counts["failed"], "not finished": len(frame) - counts["failed"] - counts[COMPLETE]}
    if any(rest.values()):
        parts = ", ".join(f"{count} {word}" for word, count in rest.items() if count)
        yield f"The study is partly complete: {counts[COMPLETE]} of {_count(len(frame), 'point')}; {parts}."


def _without_score(complete: pd.DataFrame) -> Iterator[str]:
    """The samples that entered no score."""
    kinds = {"n_failed": "could not be evaluated", "n_unscored": "had no reference answer or verdict"}
    sums = {words: int(complete[name].fillna(0).astype(float).sum()) for name, words in kinds.items()}
    parts = [f"{_count(count, 'sample')} {words}" for words, count in sums.items() if count]
    if parts:
        yield f"Without a score, over all points: {', '.join(parts)}."


def _names(frame: pd.DataFrame) -> dict[str, str]:
    """The points' labels with their settings in brackets."""
    labels = {point: label.split(", ") for point, label in point_labels(frame).items()}
    return {point: f"{pooling} ({', '.join(settings)})" for point, (pooling, *settings) in labels.items()}


def _signed(value: Any) -> str:
    return percent_text(value, signed=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    """Some names, at most MOST_NAMES of them."""
    every = list(dict.fromkeys(names))
    shown = every if len(every) <= MOST_NAMES + 1 else [*every[:MOST_NAMES], f"{len(every) - MOST_NAMES} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
