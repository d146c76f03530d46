"""Annotation files as rows: CSV, TSV, JSON, JSON lines, parquet. Each row knows its place in the file, for messages."""

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from videopool.benchmarks.errors import BenchmarkError, listed

SEPARATORS = {".csv": ",", ".tsv": "\t"}
OTHERS = ",;\t|"  # separators of tables with either suffix
SEPARATOR_LINE = re.compile(r"\ufeff?sep=([,;|\t])", re.IGNORECASE)  # spreadsheets' first line
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
KINDS = (*SEPARATORS, ".json", *JSON_LINES, PARQUET)
LISTED = 12  # names in an error message
# The names that readers look for in a sheet, and the file's own names for these.
FIELDS = ("video_name", "question", "answer", "options", "question_id", "question_type", "start", "end", "fps")
Columns = Mapping[str, str | Sequence[str] | None]
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


def read_table(path: Path, key: str) -> list[Row]:
    """All rows of an annotation file, whose suffix gives its format. Files are UTF-8, with or without a BOM.

    A table has its column names in the first line; fields may be quoted and hold line breaks. Its separator is the one
    of the column names: comma, tab, semicolon or bar. JSON is a list of objects, JSON lines one object per line, also
    in a file called .json. Of parquet, columns of bytes (frames, sound) are not read.

    Messages name `key`, the file's key in the configuration. Raises BenchmarkError for a missing, empty or malformed
    file, naming the place, and for another format.
    """
    kind = path.suffix.lower()
    if kind not in KINDS and path.is_file():
        raise BenchmarkError(f"annotation file {path}: {' '.join(KINDS)} can be read ({key})")
    text = "" if kind == PARQUET else text_of(path, key)
    if kind != PARQUET and not text.strip():
        raise BenchmarkError(f"annotation file {path} is empty ({key})")
    if kind == PARQUET:
        rows = _parquet_rows(path, key)
    elif kind in SEPARATORS:
        rows = _table_rows(path, text, SEPARATORS[kind])
    elif kind in JSON_LINES or _in_lines(text):  # split at line feeds alone: other line breaks may stand in strings
        lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [_object(parsed(line, where), where) for where, line in lines]
    else:
        rows = json_rows(path, text)
    if not rows:
        raise BenchmarkError(f"annotation file {path}: no usable sample was found ({key})")
    return rows


def renamed(rows: Sequence[Row], columns: Columns, needed: Sequence[str], mapped: bool = True) -> list[Row]:
    """Rows under the names that readers look for.

    Case, blanks and hyphens of headings do not matter: "Video Name" is video_name.

    `columns` has the file's own name for one of FIELDS; None: the same name. A list makes one value of several columns:
    a list for `options`, else texts joined by "_". An empty list leaves the value out. Every row must have the `needed`
    names. `mapped`: the user can set `benchmark.columns`.

    Raises BenchmarkError for a missing or ambiguous column, naming the columns there are and the key to set.
    """
    if unknown := [name for name in columns if name not in (*FIELDS, *needed)]:
        raise BenchmarkError(f"benchmark.columns: {unknown[0]!r} is none of {', '.join(FIELDS)}")
    own = {name: [n] if isinstance(n, str) else list(n) for name, n in columns.items() if n is not None}
    plans: dict[tuple[str, ...], tuple[_Moves, dict[str, list[str]]]] = {}  # one per set of columns
    result = []
    for row in rows:
        if (names := tuple(row.cells)) not in plans:
            plans[names] = _moves(names, _plan(row, own, needed, mapped), all_options="options" not in own)
        moves, joined = plans[names]
        cells = {name: row.cells[source] for name, source in moves}
        for name, sources in joined.items():
            cells[name] = (
                [row.cells[n] for n in sources] if name == "options" else "_".join(row.text(n) for n in sources)
            )
        result.append(row.with_cells(cells))
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


def text_of(path: Path, key: str) -> str:
    """The text of an annotation file. Raises BenchmarkError for a missing file, or a byte that is not UTF-8."""
    if not path.is_file():
        raise BenchmarkError(f"annotation file {path} does not exist ({key})")
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise BenchmarkError(f"annotation file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BenchmarkError(f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8") from error


def _separator(text: str, usual: str) -> str:
    """The separator that splits the heading into most parts; the usual one among equals."""
    if match := SEPARATOR_LINE.match(text):
        return match[1]

    def parts(separator: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), ()))
        except csv.Error:
            return 0

    return max(usual, *OTHERS, key=parts)


def _table_rows(path: Path, text: str, usual: str) -> list[Row]:
    separator, name = _separator(text.lstrip("\r\n"), usual), str(path)
    # The csv module splits lines itself; strict: a quote that is never closed must not swallow the rest.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    heading = ""
    rows: list[Row] = []
    while True:
        where = f"{name}, line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise BenchmarkError(f"{where}: malformed row: {error}") from error
        if fields is None:
            return rows
        if not fields or (not header and SEPARATOR_LINE.match(separator.join(fields))):
            continue
        if not header:
            header, heading = [name.strip(" \t\r\n\ufeff\xa0") for name in fields], where
            if twice := sorted({name for name in header if name and header.count(name) > 1}):
                raise BenchmarkError(f"{where}: the column {twice[0]!r} stands twice")
        elif len(fields) != len(header):
            raise BenchmarkError(f"{where}: malformed row: {len(fields)} fields, the header has {len(header)}")
        else:
            rows.append(Row(where, dict(zip(header, fields, strict=True)), heading))


def _parquet_rows(path: Path, key: str) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise BenchmarkError(
            f"annotation file {path}: parquet needs pyarrow, the extra `parquet`: pip install pyarrow ({key})"
        ) from error
    if not path.is_file():
        raise BenchmarkError(f"annotation file {path} does not exist ({key})")
    try:
        names = [field.name for field in parquet.read_schema(path) if "binary" not in str(field.type)]
        entries = parquet.read_table(path, columns=names).to_pylist()
    except (ArrowException, OSError) as error:
        raise BenchmarkError(f"{path}: no parquet that can be read: {str(error).splitlines()[0]}") from error
    return [Row(f"{path}, row {number}", entry) for number, entry in enumerate(entries)]


def _in_lines(text: str) -> bool:
    """Whether a text that is called JSON holds JSON lines, as some loaders take them: its first line is an object."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        return bool(rest.strip()) and isinstance(json.loads(first), dict)
    except ValueError:
        return False


def json_rows(path: Path, text: str) -> list[Row]:
    """The rows of a JSON text. Raises BenchmarkError unless it is a list of objects."""
    content = parsed(text, str(path))
    if not isinstance(content, list):
        keys = f" with {', '.join(map(repr, list(content)[:LISTED]))}" if isinstance(content, dict) else ""
        raise BenchmarkError(f"{path}: a list of objects is expected, got {type(content).__name__}{keys}")
    name = str(path)
    return [_object(entry, f"{name}, entry {number}") for number, entry in enumerate(content)]


def parsed(text: str, where: str) -> object:
    """The content of a JSON text. Raises BenchmarkError for any other text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where if ", line" in where else f"{where}, line {error.lineno}"
        raise BenchmarkError(f"{place}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where}: not JSON that can be read: {error}") from error


def _object(entry: object, where: str) -> Row:
    if not isinstance(entry, dict):
        raise BenchmarkError(f"{where}: an object is expected, got {type(entry).__name__}")
    return Row(where, entry)
