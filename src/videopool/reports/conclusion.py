"""The conclusion of a study in a few sentences, computed from its table."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from videopool.reports.cells import missing, percent_text
from videopool.reports.columns import COMPLETE, main_group, other_groups, point_labels, setting_words, varied
from videopool.reports.headline import headline_pair
from videopool.results import ResultsError, compare
from videopool.results.comparison import counted_scores, headline_of
from videopool.results.statistics import ALPHA, detectable_difference
from videopool.results.study import task_weights

VIEWS = {"": "at equal frames", "iso_token_": "at equal tokens"}
MOST_BENCHMARKS, MOST_NAMES = 3, 3  # with sentences of their own; points named in one sentence
LEAST_P = 0.0001  # the smallest p-value that is written


@dataclass(frozen=True)
class Difference:
    """A point's difference from its baseline."""

    name: str  # of the point, in words
    pair: tuple[str, str]  # folders of the two; "" for means over seeds
    value: float
    low: float | None  # None without an interval
    high: float | None
    p: float | None  # after Holm's correction
    alike: bool = False  # the two compute the same

    @property
    def text(self) -> str:
        """In percentage points, with the interval."""
        interval = "" if self.low is None else f" [{_signed(self.low)}, {_signed(self.high)}]"
        return f"{_signed(self.value)} points{interval}"

    @property
    def p_text(self) -> str:
        return "" if self.p is None else "p < 0.0001" if self.p < LEAST_P else f"p = {self.p:.2g}"


def conclusion(frame: pd.DataFrame, baseline: str, seeds: pd.DataFrame | None = None, headline: str = "") -> list[str]:
    """Sentences: what is complete, the headline, the best score, differences from the baseline, what has no score.

    frame: from add_differences; seeds: from over_seeds, whose differences replace those of single points at equal
    frames. headline: from the study's file. Differences are in percentage points with 95 % intervals, and count if
    their p-value after Holm's correction is below 5 %.
    """
    complete = frame[frame.status == COMPLETE]
    names = {point: _in_words(label.split(", ")) for point, label in point_labels(frame).items()}
    sentences = list(_completeness(frame))
    if pair := headline_pair(headline, complete):
        sentences.append(_headline(complete, pair, names))
    benchmarks = list(complete.groupby("benchmark", sort=False))
    for benchmark, rows in benchmarks[:MOST_BENCHMARKS]:
        replicated = pd.DataFrame() if seeds is None or seeds.empty else seeds[seeds.benchmark == benchmark]
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
    views = {words: _differences(rows, view, names) for view, words in VIEWS.items()}
    family = len({own.pair for view in views.values() for own in view if own.p is not None})
    if len(seeds) and seeds.difference.notna().any():
        views = {f"over seeds, {VIEWS['']}": _over_seeds(seeds), VIEWS["iso_token_"]: views[VIEWS["iso_token_"]]}
    untold: dict[str, list[Difference]] = {}
    for words, differences in views.items():
        tested = [own for own in differences if own.p is not None]
        together = len(tested) if words.startswith("over seeds") else family  # Holm corrects these by themselves
        yield from _view(words.capitalize(), [own for own in differences if not own.alike], baseline, together)
        untold[words] = [own for own in tested if not own.alike and own.p is not None and own.p >= ALPHA]
    if len(scored) == 1:
        yield "There is no other point to compare it with."
    elif not any(views.values()):
        known = baseline in {*rows.pooling, *rows.point}
        problem = "No point can be compared with" if known else "There is no complete point of"
        yield f"{problem} the baseline ({baseline}); baseline=... names another pooling or point."
    alike = {own.name: None for view in views.values() for own in view if own.alike}
    yield from _untold(untold, list(alike), family)
    reasons = [row["differs"] for row in rows.to_dict("records") if row["baseline"] and missing(row["difference"])]
    if reasons:
        yield f"{_count(len(reasons), 'point')} cannot be compared with the baseline: unequal {_listed(set(reasons))}."
    yield from _at_chance(scored)


def _differences(rows: pd.DataFrame, view: str, names: Mapping[str, str]) -> list[Difference]:
    """The differences of one view."""
    maps = {row.point: row.point if missing(row.same_map_as) else row.same_map_as for row in rows.itertuples()}
    folders = dict(zip(rows.point, rows.folder, strict=True))
    found = []
    for row in rows[rows[f"{view}difference"].notna()].to_dict("records"):
        point, other = row["point"], row[f"{view}baseline"]
        pair = folders[point], folders[other]
        found.append(Difference(names[point], pair, *_numbers(row, view), maps[point] == maps[other]))
    return found


def _over_seeds(seeds: pd.DataFrame) -> list[Difference]:
    """The differences of means over seeds."""
    settings = [name for name in varied(seeds) if name != "seed"]
    found = []
    for row in seeds[seeds.difference.notna()].to_dict("records"):
        name = _in_words([row["pooling"], _count(int(row["frames"]), "frame"), *setting_words(row, settings)])
        found.append(Difference(name, ("", ""), *_numbers(row)))
    return found


def _numbers(row: Mapping[Any, Any], view: str = "") -> tuple[Any, Any, Any, Any]:
    """Value, bounds and corrected p-value of a row's difference; None for what is missing."""
    value, low, high, p = (
        None if missing(row[f"{view}{name}"]) else float(row[f"{view}{name}"])
        for name in ("difference", "difference_low", "difference_high", "p_holm")
    )
    return value, low, high, p


def _view(words: str, differences: Sequence[Difference], baseline: str, family: int) -> Iterator[str]:
    """How many points differ from the baseline, and the largest difference."""
    tested = [own for own in differences if own.p is not None]
    if not differences:
        return
    if not tested:
        largest = max(differences, key=lambda own: abs(own.value))
        start = f"{words}, the largest difference from the baseline ({baseline}) is {largest.text}, {largest.name}"
        yield f"{start}; with fewer than 10 clips there are no intervals, and nothing can be told apart."
        return
    found = [own for own in tested if own.p is not None and own.p < ALPHA]
    if len(tested) == 1:  # if it shows no difference, the next sentence says so
        own = tested[0]
        who = f"{own.name} differs from the baseline ({baseline}) by {own.text}"
        yield from [f"{words}, {who} ({own.p_text} after Holm's correction for {family})."] if found else []
        return
    text = f"{words}, {len(found) or 'not one'} of {_count(len(tested), 'comparison')} with the baseline ({baseline}) "
    text += f"{'shows' if len(found) <= 1 else 'show'} a difference after Holm's correction for {family}"
    if found:
        higher = sum(own.value > 0 for own in found)
        kinds = [f"{n} {word}" for n, word in ((higher, "higher"), (len(found) - higher, "lower")) if n]
        largest = max(found, key=lambda own: abs(own.value))
        text += f": {', '.join(kinds)}, the largest {largest.text} for {largest.name}"
    yield f"{text}."


def _untold(views: Mapping[str, Sequence[Difference]], alike: Sequence[str], family: int) -> Iterator[str]:
    """The points that cannot be told apart from the baseline, and how large a difference would have been found."""
    every = [own for differences in views.values() for own in differences]
    same = f"The same as the baseline is computed by {_listed(alike)}." if alike else ""
    if not every:
        yield from [same] if same else []
        return
    places = [f"{_listed(own.name for own in view)} {words}" for words, view in views.items() if view]
    lows, highs = ([bound for own in every if (bound := getattr(own, end)) is not None] for end in ("low", "high"))
    reach = f"their intervals lie within {_signed(min(lows))} and {_signed(max(highs))} points"
    reach = every[0].text if len(every) == 1 else reach
    widest = max(every, key=lambda own: (own.high or 0.0) - (own.low or 0.0))
    least = detectable(*widest.pair, family) if widest.pair[0] else None
    power = "" if least is None else f"; a true difference of {100 * least:.1f} points would be found with 80 % power"
    yield f"Not told apart from the baseline: {'; '.join(places)} ({reach}{power}). {same}".strip()


def detectable(first: str, second: str, comparisons: int) -> float | None:
    """The smallest difference, 0..1, that a comparison like that of two points (folders) finds with 80 % power.

    From their own share of samples that only one got right, and the correlation of these within a clip. None for
    scores other than right and wrong, weighted tasks, equal answers, or too few clips.
    """
    counts = headline_of(first)
    ours, theirs = counted_scores(first, counts), counted_scores(second, counts)
    table = pd.DataFrame([(own.clip, own.score, theirs[name].score) for name, own in ours.items() if name in theirs])
    if table.empty or task_weights(first) or not table[[1, 2]].isin([0.0, 1.0]).all(axis=None):
        return None
    difference = table[1] - table[2]
    flipped, mean = float((difference != 0).mean()), float(difference.mean())
    variance = flipped - mean**2
    if not variance > 0:
        return None
    clips = (difference - mean).groupby(table[0])
    sizes = clips.size()
    pairs = float((sizes * (sizes - 1)).sum())  # of samples of one clip
    alike = float((clips.sum() ** 2).sum()) / variance - len(table)
    correlation = min(max(alike / pairs, 0.0), 1.0) if pairs else 0.0
    return detectable_difference(sizes.tolist(), correlation, flipped, max(1, comparisons))


def _headline(complete: pd.DataFrame, pair: tuple[str, str], names: Mapping[str, str]) -> str:
    """The difference of the headline's two points, with the table's p-value if it compares them."""
    start = f"The headline, {names[pair[0]]} minus {names[pair[1]]}"
    folders = dict(zip(complete.point, complete.folder, strict=True))
    benchmark = complete.set_index("point").benchmark[pair[0]]
    first, second = (folders[point] for point in pair)
    try:
        own = compare(first, second, headline_of(first)).difference
    except ResultsError as error:
        return f"{start}, has no difference: {error}."
    held = [d for view in VIEWS for d in _differences(complete, view, names) if d.pair == (first, second)]
    corrected = held[0].p if held else own.p
    low, high = (None if np.isnan(bound) else bound for bound in (own.low, own.high))
    difference = Difference("", (first, second), own.value, low, high, corrected)
    text = f"{start}, is {difference.text}{_main_tasks(complete[complete.benchmark == benchmark])}"
    if corrected is None:
        return f"{text}; fewer than 10 clips give no interval."
    kind = "after Holm's correction" if held else "by itself"
    return f"{text} ({difference.p_text} {kind}){'' if corrected < ALPHA else ': the two cannot be told apart'}."


def _best(scored: pd.DataFrame, names: Mapping[str, str]) -> str:
    row = scored.loc[scored.score.astype(float).idxmax()]
    where = _main_tasks(scored)
    interval = "" if missing(row.ci_low) else f" [{percent_text(row.ci_low)}, {percent_text(row.ci_high)}]"
    chance = "" if missing(row.chance) else f" (chance: {percent_text(row.chance)} %)"
    who = names[row.point]
    if len(scored) == 1:
        return f"{who[0].upper()}{who[1:]} scores {percent_text(row.score)} %{interval}{where}{chance}."
    return f"The highest score{where} is {percent_text(row.score)} %{interval}{chance}, of {who}."


def _main_tasks(scored: pd.DataFrame) -> str:
    """The group of tasks that scores are of, if there are others."""
    main = main_group(scored) if other_groups(scored) else ""
    return f" on {main} tasks" if main else ""


def _at_chance(scored: pd.DataFrame) -> Iterator[str]:
    """Groups of tasks besides the headline that many points answer no better than by chance."""
    for group in other_groups(scored):
        low, high, chance = (scored[f"{name}_{group}"].astype(float) for name in ("ci_low", "ci_high", "chance"))
        known = low.notna() & chance.notna()
        held = int((known & (low <= chance) & (chance <= high)).sum())
        if held:
            points, level = _count(int(known.sum()), "point"), percent_text(chance[known].iloc[0])
            yield f"On {group} tasks, the intervals of {held} of {points} contain chance ({level} %)."


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


def _in_words(label: Sequence[str]) -> str:
    """A point's label with its settings in brackets."""
    return label[0] if len(label) < 2 else f"{label[0]} ({', '.join(label[1:])})"


def _signed(value: float | None) -> str:
    return percent_text(value, signed=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Any) -> str:
    """Some names, at most MOST_NAMES of them."""
    every = list(dict.fromkeys(names))
    shown = every if len(every) <= MOST_NAMES + 1 else [*every[:MOST_NAMES], f"{len(every) - MOST_NAMES} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
