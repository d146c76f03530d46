"""Rows of annotation files, and the names of their columns. Each row knows its place in the file, for messages."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from videopool.benchmarks.errors import BenchmarkError, listed, spare

LISTED = 12  # names in an error message
# The names that readers look for in a sheet, and the file's own names for these.
FIELDS = ("video_name", "question", "answer", "options", "question_id", "question_type", "start", "end", "fps")
Columns = Mapping[str, str | Sequence[str] | None]
LeftOut = list[BenchmarkError] | None  # takes errors about rows that cannot be used; None: they are raised
_Moves = Sequence[tuple[str, str]]  # new names and the columns that get them


class Row(NamedTuple):
    """One entry of an annotation file. The largest have 72,821, and each is read several times."""

    where: str  # file and line, or file and entry
    cells: Mapping[str, object]  # values by column; text if the file is a table
    heading: str = ""  # file and line of a table's column names

    def with_cells(self, cells: Mapping[str, object]) -> "Row":
        """The row of this place with other values."""
        return Row(self.where, cells, self.heading)

    def error(self, message: str) -> BenchmarkError:
        """An error about this row."""
        return BenchmarkError(f"{self.where}: {message}")

    def heading_error(self, message: str) -> BenchmarkError:
        """An error about the columns of this row."""
        return BenchmarkError(f"{self.heading or self.where}: {message}")

    def text(self, field: str, required: bool = False) -> str:
        """A value as stripped text; "" if there is none.

        Raises BenchmarkError for a value that is neither text nor number, and for a required one that is missing.
        """
        value = self.cells.get(field)
        text = value.strip() if type(value) is str else self.as_text(value, field)
        if required and not text:
            problem = "is empty" if field in self.cells else "is missing"
            raise self.error(f"malformed row: the field {field!r} {problem}")
        return text

    def as_text(self, value: object, field: str) -> str:
        """A value, or one of a list, as text. Whole numbers lose the fraction that some exports add."""
        if value is None:
            return ""
        if type(value) is int:
            return str(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.error(f"the field {field!r} must be text, got {type(value).__name__}")
        return "" if isinstance(value, float) and math.isnan(value) else str(value).strip()

    def number(self, field: str) -> float | None:
        """A finite number of at least 0; None if there is none. Raises BenchmarkError for anything else."""
        if self.cells.get(field) is None or not (text := self.text(field)) or text.lower() == "nan":
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise self.error(f"the field {field!r} must be a number of at least 0, got {text!r}")
        return value


def renamed(
    rows: Sequence[Row], columns: Columns, needed: Sequence[str], mapped: bool = True, left_out: LeftOut = None
) -> list[Row]:
    """Rows under the names that readers look for.

    Case, blanks and hyphens of headings do not matter: "Video Name" is video_name.

    `columns` has the file's own name for one of FIELDS; None: the same name. A list makes one value of several columns:
    a list for `options`, else texts joined by "_". An empty list leaves the value out. Every row must have the `needed`
    names. `mapped`: the user can set `benchmark.columns`.

    Raises BenchmarkError for a missing or ambiguous column, naming the columns there are and the key to set; if only
    some rows lack a column, their errors go to `left_out`, if given.
    """
    if unknown := [name for name in columns if name not in (*FIELDS, *needed)]:
        raise BenchmarkError(f"benchmark.columns: {unknown[0]!r} is none of {', '.join(FIELDS)}")
    own = {name: [n] if isinstance(n, str) else list(n) for name, n in columns.items() if n is not None}
    plans: dict[tuple[str, ...], tuple[_Moves, dict[str, list[str]]]] = {}  # one per set of columns
    result = []
    for row in rows:
        try:
            if (names := tuple(row.cells)) not in plans:
                plans[names] = _moves(names, _plan(row, own, needed, mapped), all_options="options" not in own)
            moves, joined = plans[names]
            cells = {name: row.cells[source] for name, source in moves}
            for name, sources in joined.items():
                several = [row.cells[source] for source in sources]
                cells[name] = several if name == "options" else "_".join(row.as_text(one, name) for one in several)
            result.append(row.with_cells(cells))
        except BenchmarkError as error:
            spare(error, left_out)
    if rows and not result and left_out:
        raise left_out[-1]
    return result


def plain_name(name: str) -> str:
    """A heading in lower case, with "_" for blanks, hyphens, dots and brackets, and none at its ends."""
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", name).casefold()).strip("_")


def _plan(row: Row, own: Mapping[str, Sequence[str]], needed: Sequence[str], mapped: bool) -> dict[str, list[str]]:
    """The file's columns for each of our names."""
    plan = {name: [_column(row, n, name, mapped) for n in names] for name, names in own.items()}
    for name in dict.fromkeys((*needed, *FIELDS)):
        if name not in plan and (name in needed or any(plain_name(cell) == name for cell in row.cells)):
            plan[name] = [_column(row, name, name, mapped)]
    return plan


def _column(row: Row, name: str, field: str, mapped: bool) -> str:
    """The one column called `name`, which holds a field."""
    if name != field and name in row.cells:  # the user's choice
        return name
    alike = [cell for cell in row.cells if cell == name or (plain_name(cell) == plain_name(name) != "")]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise row.heading_error(f"{', '.join(map(repr, alike))} could all be the column {name!r}; keep one of them")
    there = listed([repr(cell) for cell in row.cells if cell], LISTED) or "none"
    advice = f"; name its own with benchmark.columns.{field}=..." if mapped and field in FIELDS else ""
    raise row.heading_error(f"the column {name!r} is missing; there are {there}{advice}")


def _moves(
    names: Sequence[str], plan: Mapping[str, list[str]], all_options: bool
) -> tuple[_Moves, dict[str, list[str]]]:
    """What a plan does to a row with these columns: those that get a name, and those that several columns make.

    Without `all_options`, no column beside the plan's can be an option.
    """
    used = {n for sources in plan.values() for n in sources}
    rest = [(name, name) for name in names if name not in used and all_options]
    single = [(name, sources[0]) for name, sources in plan.items() if len(sources) == 1]
    return [*rest, *single], {name: sources for name, sources in plan.items() if len(sources) != 1}
