"""Where a row of an annotation file keeps the options of its question.

Understood are numbered columns (a0, option_1, opt1, choice_a), columns that are letters (A, B ...), and one column
with a list. What looks like options and is none of these is refused: an option must not be lost.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase

from videopool.benchmarks.tables import Row, plain_name

LISTS = (
    "options", "candidates", "choices", "opts", "answer_options", "answer_choices", "answer_candidates",
    "candidate_answers", "possible_answers", "option", "choice", "mc_options", "mc_choices",
)  # fmt: skip
WORD = r"(?:mc_|multiple_choice_)?(?:opt|option|choice|cand|candidate|answer_(?:option|choice|candidate))s?"
NUMBERED = re.compile(rf"(?P<word>a|{WORD})_?(?P<number>\d+)")
LETTERED = re.compile(rf"(?P<word>{WORD})_?(?P<letter>[a-z])|(?P<short>a|answer)_(?P<only>[a-z])")
# Columns that may hold options, in a way that is not known.
SUSPECT = re.compile(r"option|choice|candidate|distract|alternative|\bfoil|(?:^|_)(?:wrong|incorrect|false)(?:_|$)")
LEFT_OVER = re.compile(r"distract|alternative|\bfoil|(?:^|_)(?:wrong|incorrect|false)(?:_|$)")
SUSPECT_NUMBERED = re.compile(r"(?P<word>o|c|ans|answer|answers|correct_answer|possible_answer|)_?(?P<number>\d+)")
# What exports write where a question has fewer options than there are columns.
FILL_UPS = frozenset(("N/A", "n/a", "NA", "NaN", "nan", "<NA>", "#N/A"))
MAP = "say which with benchmark.columns.options=[...], or benchmark.columns.options=[] if none are"


@dataclass(frozen=True)
class Layout:
    """The columns that hold options.

    Attributes:
        series: columns with one option each, in order; several such rows of columns must agree.
        lists: columns with a list of all options.
        first: the number of the first option, where columns are numbered from 1; else 0.
    """

    series: tuple[tuple[str, ...], ...] = ()
    lists: tuple[str, ...] = ()
    first: int = 0


@dataclass(frozen=True)
class Options:
    """A row's options, () for an open question; first: where the row counts them from."""

    texts: tuple[str, ...]
    first: int = 0


def options_of(row: Row, fill_ups: frozenset[str] = FILL_UPS) -> Options:
    """The options of a row; empty ones at the end are none, and nor are fill-ups.

    Raises:
        BenchmarkError: columns that look like options and are not understood, or a row with a gap or one option alone.
    """
    try:
        layout = layout_of(tuple(row.cells))
    except ValueError as error:
        raise row.heading_error(str(error)) from error
    found: dict[tuple[str, ...], str] = {}
    for names in layout.series:
        own = _trimmed(row, [row.text(name) for name in names], names, fill_ups)
        found.setdefault(own, names[0])
    for name in layout.lists:
        listed = _listed(row, name)
        own = _trimmed(row, listed, [f"{name}[{place}]" for place in range(len(listed))], fill_ups)
        found.setdefault(own, name)
    found.pop((), None)
    if len(found) > 1:
        raise row.error(f"malformed row: {' and '.join(map(repr, found.values()))} give different options; {MAP}")
    return Options(next(iter(found), ()), layout.first)


@lru_cache(maxsize=256)
def layout_of(names: tuple[str, ...]) -> Layout:
    """Which columns hold options. Raises ValueError, saying why and what to do, if that cannot be said for sure."""
    series: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    lists: list[str] = []
    suspects: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    odd: list[str] = []
    for name in names:
        plain = _ascii(name)
        if plain in LISTS:
            lists.append(name)
        elif match := NUMBERED.fullmatch(plain):
            series[f"{_word(match)}#"][int(match["number"])].append(name)
        elif match := LETTERED.fullmatch(plain):
            letter = match["letter"] or match["only"]
            series[_word(match)][ascii_lowercase.index(letter)].append(name)
        elif len(plain) == 1 and plain in ascii_lowercase:
            case = "upper" if plain.upper() in name else "lower"
            series[case][ascii_lowercase.index(plain)].append(name)
        elif match := SUSPECT_NUMBERED.fullmatch(plain):
            suspects[match["word"]][int(match["number"])].append(name)
        elif SUSPECT.search(plain):
            odd.append(name)
    left: dict[str, int] = {}  # single columns that might go on where a series ends
    for case in ("upper", "lower"):
        if case in series and len(series[case].keys() & {0, 1, 2, 3, 4}) < 2:  # a column called A or x
            left |= {name: place for place, several in series.pop(case).items() for name in several}
    for word, numbers in series.items():
        _check(numbers, numbered=word.endswith("#"))
    ordered = tuple(tuple(numbers[n][0] for n in sorted(numbers)) for numbers in series.values())
    ends = {place for names in ordered for place in (len(names), len(names) + 1)}
    if ordered or lists:
        odd = [name for name in odd if LEFT_OVER.search(_ascii(name))]
        odd += [name for name, place in left.items() if place in ends]
    for word, found in suspects.items():
        if len(found) > 1 or (found.keys() & ends if not word else ordered):
            odd += [name for several in found.values() for name in several]
    if odd:
        looks = "looks" if len(odd) == 1 else "look"
        raise ValueError(f"{_quoted(odd)} {looks} like options, in a layout that is not known; {MAP}")
    first = {min(numbers) for word, numbers in series.items() if word.endswith("#")}
    return Layout(ordered, tuple(lists), 1 if first == {1} and not lists else 0)


def _ascii(name: str) -> str:
    """A heading's letters and digits; "选项A" is "a"."""
    return re.sub(r"[^0-9a-z_]+", "", plain_name(name)).strip("_")


def _word(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return (groups["word"] or groups["short"]).rstrip("s")


def _check(numbers: Mapping[int, Sequence[str]], numbered: bool) -> None:
    """Raises ValueError unless options are numbered from 0 or 1, or lettered from A, without a gap."""
    there = [name for n in sorted(numbers) for name in numbers[n]]
    for several in numbers.values():
        if len(several) > 1:
            raise ValueError(f"{_quoted(several)} stand for the same option")
    wanted = range(min(numbers), min(numbers) + len(numbers))
    if min(numbers) > numbered or list(wanted) != sorted(numbers):
        raise ValueError(f"{_quoted(there)} look like options, but there is a gap in them; {MAP}")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (" ..." if len(names) > 8 else "")


def _listed(row: Row, name: str) -> list[str]:
    """The options in one cell: a list, that of a JSON text, or an object whose names are places or letters."""
    listed = row.cells.get(name)
    if listed is None or (isinstance(listed, str) and (not listed.strip() or listed.strip() in FILL_UPS)):
        return []
    if isinstance(listed, str):
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError):
            pass
    if isinstance(listed, Mapping):
        cells = {str(key): value for key, value in listed.items()}
        listed = [cells[key] for key in _in_order(row, name, cells)]
    if not isinstance(listed, list):
        kind = type(listed).__name__
        raise row.error(f"the field {name!r} must be a list, got {kind}; in a table, a JSON list or columns a0, a1 ...")
    return [row.as_text(option, name) for option in listed]


def _in_order(row: Row, name: str, cells: Mapping[str, object]) -> Sequence[str]:
    """The names of an object's options, in order: places or letters."""
    order = sorted(cells, key=lambda key: (len(key), key))
    if order in [[str(n) for n in range(first, first + len(order))] for first in (0, 1)]:
        return order
    try:
        (names,) = layout_of(tuple(cells)).series
    except ValueError:
        names = ()
    if len(names) != len(cells):
        raise row.error(f"the field {name!r} must be a list of options, got an object with {_quoted(order)}")
    return names


def _trimmed(row: Row, own: list[str], names: Sequence[str], fill_ups: frozenset[str]) -> tuple[str, ...]:
    while own and (not own[-1] or own[-1] in fill_ups):
        own.pop()
    for text, name in zip(own, names, strict=False):
        if not text or text in fill_ups:
            empty = "is empty" if not text else f"is {text!r}, and others follow"
            raise row.error(f"malformed row: the option {name!r} {empty}")
    if len(own) == 1:
        raise row.error(f"malformed row: one option alone, {own[0]!r}")
    return tuple(own)
