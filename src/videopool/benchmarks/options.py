"""Where a row of an annotation file keeps the options of its question.

Known layouts: numbered columns (a0, option_1, opt1, choice_a), columns that are letters (A, B ...), and one column
with a list. Columns that look like options in another layout are refused, so that no option is lost.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from string import ascii_lowercase

from videopool.benchmarks.columns import Row, plain_name

LISTS = (
    "options", "candidates", "choices", "opts", "answer_options", "answer_choices", "answer_candidates",
    "candidate_answers", "possible_answers", "option", "choice", "mc_options", "mc_choices",
)  # fmt: skip
WORD = r"(?:mc_|multiple_choice_)?(?:opt|option|choice|cand|candidate|answer_(?:option|choice|candidate))s?"
NUMBERED = re.compile(rf"(?P<word>a|{WORD})_?(?P<number>\d+)")
LETTERED = re.compile(rf"(?P<word>{WORD})_?(?P<letter>[a-z])|(?P<short>a|answer)_(?P<only>[a-z])")
# Columns that may hold options in an unknown layout.
LEFT_OVER = re.compile(r"distract|alternative|\bfoil|(?:^|_)(?:wrong|incorrect|false)(?:_|$)")
SUSPECT = re.compile(rf"option|choice|candidate|{LEFT_OVER.pattern}")
SUSPECT_NUMBERED = re.compile(r"(?P<word>o|c|ans|answer|answers|correct_answer|possible_answer|)_?(?P<number>\d+)")
# Placeholders of exports, where a question has fewer options than there are columns.
FILL_UPS = frozenset(("N/A", "n/a", "NA", "NaN", "nan", "<NA>", "#N/A"))
MAP = "say which with benchmark.columns.options=[...], or benchmark.columns.options=[] if none are"

Series = dict[str, dict[int, list[str]]]  # by word, the columns at each place


def options_of(row: Row, fill_ups: frozenset[str] = FILL_UPS) -> tuple[tuple[str, ...], int]:
    """The options of a row without trailing empty ones and placeholders (fill-ups), and the number of the first.

    Raises BenchmarkError for columns that look like options in an unknown layout, and for a gap or a single option.
    """
    try:
        series, lists, first = layout_of(tuple(row.cells))
    except ValueError as error:
        raise row.heading_error(str(error)) from error
    if not series and not lists:
        return (), first
    sources: dict[tuple[str, ...], str] = {}  # by options, the column that gives them
    for names in series:
        texts = [row.text(name) for name in names]
        sources.setdefault(_trimmed(row, texts, names, fill_ups), names[0])
    for name in lists:
        texts = _list_in(row, name)
        places = [f"{name}[{place}]" for place in range(len(texts))]
        sources.setdefault(_trimmed(row, texts, places, fill_ups), name)
    sources.pop((), None)
    if len(sources) > 1:
        raise row.error(f"malformed row: {' and '.join(map(repr, sources.values()))} give different options; {MAP}")
    return next(iter(sources), ()), first


@lru_cache(maxsize=256)
def layout_of(names: tuple[str, ...]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...], int]:
    """Series of columns with one option each, columns with a list of all options, and the number of the first option.

    It is 1 if columns are numbered from 1, else 0. Raises ValueError for an ambiguous or unknown layout.
    """
    series: Series = defaultdict(lambda: defaultdict(list))
    suspects: Series = defaultdict(lambda: defaultdict(list))
    lists: list[str] = []
    odd: list[str] = []
    for name in names:
        plain = _ascii(name)
        if plain in LISTS:
            lists.append(name)
        elif match := NUMBERED.fullmatch(plain):
            series[f"{match['word'].rstrip('s')}#"][int(match["number"])].append(name)
        elif match := LETTERED.fullmatch(plain):
            word, letter = match["word"] or match["short"], match["letter"] or match["only"]
            series[word.rstrip("s")][ascii_lowercase.index(letter)].append(name)
        elif len(plain) == 1 and plain in ascii_lowercase:
            case = "upper" if plain.upper() in name else "lower"
            series[case][ascii_lowercase.index(plain)].append(name)
        elif match := SUSPECT_NUMBERED.fullmatch(plain):
            suspects[match["word"]][int(match["number"])].append(name)
        elif SUSPECT.search(plain):
            odd.append(name)
    single: dict[str, int] = {}  # single letters as columns, with the place where they might continue a series
    for case in ("upper", "lower"):
        if case in series and len(series[case].keys() & {0, 1, 2, 3, 4}) < 2:  # a column called A or x
            single |= {name: place for place, several in series.pop(case).items() for name in several}
    for word, places in series.items():
        _check(places, numbered=word.endswith("#"))
    ordered = tuple(tuple(places[n][0] for n in sorted(places)) for places in series.values())
    ends = {place for columns in ordered for place in (len(columns), len(columns) + 1)}
    if ordered or lists:
        odd = [name for name in odd if LEFT_OVER.search(_ascii(name))]
        odd += [name for name, place in single.items() if place in ends]
    for word, places in suspects.items():
        if len(places) > 1 or (ordered if word else places.keys() & ends):
            odd += [name for several in places.values() for name in several]
    if odd:
        looks = "looks" if len(odd) == 1 else "look"
        raise ValueError(f"{_quoted(odd)} {looks} like options, in a layout that is not known; {MAP}")
    first = {min(places) for word, places in series.items() if word.endswith("#")}
    return ordered, tuple(lists), 1 if first == {1} and not lists else 0


def _ascii(name: str) -> str:
    """The ASCII letters and digits of a heading; "选项A" is "a"."""
    return re.sub(r"[^0-9a-z_]+", "", plain_name(name)).strip("_")


def _check(places: Mapping[int, Sequence[str]], numbered: bool) -> None:
    """Raises ValueError unless options are numbered from 0 or 1, or lettered from A, without a gap."""
    for several in places.values():
        if len(several) > 1:
            raise ValueError(f"{_quoted(several)} stand for the same option")
    first = min(places)
    if first > numbered or sorted(places) != list(range(first, first + len(places))):
        names = [places[n][0] for n in sorted(places)]
        raise ValueError(f"{_quoted(names)} look like options, but there is a gap in them; {MAP}")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (" ..." if len(names) > 8 else "")


def _list_in(row: Row, name: str) -> list[str]:
    """The options in one cell: a list, a JSON list, or an object whose keys are places or letters."""
    cell = row.cells.get(name)
    if cell is None or (isinstance(cell, str) and (not cell.strip() or cell.strip() in FILL_UPS)):
        return []
    if isinstance(cell, str):
        with suppress(ValueError, RecursionError):
            cell = json.loads(cell)
    if isinstance(cell, Mapping):
        by_key = {str(key): value for key, value in cell.items()}
        cell = [by_key[key] for key in _in_order(row, name, by_key)]
    if not isinstance(cell, list):
        kind = type(cell).__name__
        raise row.error(f"the field {name!r} must be a list, got {kind}; in a table, a JSON list or columns a0, a1 ...")
    return [row.as_text(option, name) for option in cell]


def _in_order(row: Row, name: str, by_key: Mapping[str, object]) -> Sequence[str]:
    """The keys of an object of options, in order: places or letters."""
    order = sorted(by_key, key=lambda key: (len(key), key))
    if order in [[str(n) for n in range(first, first + len(order))] for first in (0, 1)]:
        return order
    try:
        (names,) = layout_of(tuple(by_key))[0]
    except ValueError:
        names = ()
    if len(names) != len(by_key):
        raise row.error(f"the field {name!r} must be a list of options, got an object with {_quoted(order)}")
    return names


def _trimmed(row: Row, texts: list[str], names: Sequence[str], fill_ups: frozenset[str]) -> tuple[str, ...]:
    while texts and (not texts[-1] or texts[-1] in fill_ups):
        texts.pop()
    for text, name in zip(texts, names[: len(texts)], strict=True):
        if not text or text in fill_ups:
            problem = f"is {text!r}, and others follow" if text else "is empty"
            raise row.error(f"malformed row: the option {name!r} {problem}")
    if len(texts) == 1:
        raise row.error(f"malformed row: one option alone, {texts[0]!r}")
    return tuple(texts)
