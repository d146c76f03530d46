"""Annotation files to rows: CSV, TSV, JSON and JSON lines, each row with its place in the file for error messages."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videopool.benchmarks.errors import BenchmarkError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
KINDS = (*SEPARATORS, ".json", *JSON_LINES)
LISTED = 12  # names in an error message

# What a file calls the values that readers look for.
Columns = Mapping[str, str | Sequence[str] | None]


@dataclass(frozen=True)
class Row:
    """One entry of an annotation file.

    Attributes:
        where: file and line, or file and entry, for error messages.
        cells: values by column; text if the file is a table.
    """

    where: str
    cells: Mapping[str, object]

    def error(self, message: str) -> BenchmarkError:
        """An error about this row."""
        return BenchmarkError(f"{self.where}: {message}")

    def text(self, field: str, required: bool = False) -> str:
        """A value as text without white space around it; "" where there is none.

        Raises:
            BenchmarkError: the value is no text or number, or it is required and there is none.
        """
        text = self.as_text(self.cells.get(field), field)
        if required and not text:
            what = "is empty" if field in self.cells else "is missing"
            raise self.error(f"malformed row: the field {field!r} {what}")
        return text

    def as_text(self, value: object, field: str) -> str:
        """One value, or one of a list, as text. Whole numbers lose the fraction that some exports give them."""
        if value is None:
            return ""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.error(f"the field {field!r} must be text, got {type(value).__name__}")
        return "" if isinstance(value, float) and math.isnan(value) else str(value).strip()

    def number(self, field: str) -> float | None:
        """A finite number of at least 0, or None where there is none.

        Raises:
            BenchmarkError: it is something else.
        """
        said = self.text(field)
        if not said or said.lower() == "nan":
            return None
        try:
            value = float(said)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise self.error(f"the field {field!r} must be a number of at least 0, got {said!r}")
        return value


def read_table(path: Path, key: str) -> list[Row]:
    """All rows of an annotation file; its suffix says what it is.

    A table has its column names in the first line, and fields that may be quoted and hold line breaks. JSON is a
    list of objects, JSON lines one object a line. All are UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        key: what the configuration calls it.

    Raises:
        BenchmarkError: it is missing, empty, of another kind, or malformed somewhere (naming where).
    """
    if not path.is_file():
        raise BenchmarkError(f"annotation file {path} does not exist ({key})")
    kind = path.suffix.lower()
    if kind not in KINDS:
        advice = "; export it: pandas.read_parquet(...).to_json(..., orient='records')" if kind == ".parquet" else ""
        raise BenchmarkError(f"annotation file {path}: {' '.join(KINDS)} can be read{advice} ({key})")
    text = _decoded(path)
    if not text.strip():
        raise BenchmarkError(f"annotation file {path} is empty ({key})")
    if kind in SEPARATORS:
        rows = _table(path, text, SEPARATORS[kind])
    else:
        rows = _json_lines(path, text) if kind in JSON_LINES else _json(path, text)
    if not rows:
        raise BenchmarkError(f"annotation file {path}: no usable sample was found ({key})")
    return rows


def renamed(rows: Sequence[Row], columns: Columns, needed: Sequence[str]) -> list[Row]:
    """Rows under the names that readers look for.

    Args:
        columns: for a name that readers look for, the file's own; None if it is the same. Several make one value: a
            list for `options`, else their texts joined by "_"; an empty list leaves the value out.
        needed: names that every row must have.

    Raises:
        BenchmarkError: a column is missing; says which there are.
    """
    own = {name: [n] if isinstance(n, str) else list(n) for name, n in columns.items() if n is not None}
    return [_renamed(row, own, needed) for row in rows]


def _renamed(row: Row, own: Mapping[str, Sequence[str]], needed: Sequence[str]) -> Row:
    for name in [*(n for names in own.values() for n in names), *(n for n in needed if n not in own)]:
        if name not in row.cells:
            there = [repr(cell) for cell in row.cells if cell]
            more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
            said = f"the column {name!r} is missing; there are {', '.join(there[:LISTED]) or 'none'}{more}"
            raise row.error(said)
    cells = dict(row.cells)
    for name, names in own.items():
        if name == "options":
            several = [row.cells[n] for n in names]
            cells[name] = several[0] if len(names) == 1 else several
        else:
            cells[name] = row.cells[names[0]] if len(names) == 1 else "_".join(row.text(n) for n in names)
    return replace(row, cells=cells)


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchmarkError(f"annotation file {path}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BenchmarkError(f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8") from error


def _table(path: Path, text: str, separator: str) -> list[Row]:
    # The csv module takes line breaks apart itself; strict: a quote that is never closed must not eat the rest.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    rows: list[Row] = []
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise BenchmarkError(f"{where}: malformed row: {error}") from error
        if fields is None:
            return rows
        if not fields:
            continue
        if not header:
            header = [name.strip() for name in fields]
            if twice := sorted({name for name in header if name and header.count(name) > 1}):
                raise BenchmarkError(f"{where}: the column {twice[0]!r} stands twice")
        elif len(fields) != len(header):
            raise BenchmarkError(f"{where}: malformed row: {len(fields)} fields, the header has {len(header)}")
        else:
            rows.append(Row(where, dict(zip(header, fields, strict=True))))


def _json(path: Path, text: str) -> list[Row]:
    content = _parsed(text, str(path))
    if not isinstance(content, list):
        keys = f" with {', '.join(map(repr, list(content)[:LISTED]))}" if isinstance(content, dict) else ""
        raise BenchmarkError(f"{path}: a list of objects is expected, got {type(content).__name__}{keys}")
    return [_object(entry, f"{path}, entry {number}") for number, entry in enumerate(content)]


def _json_lines(path: Path, text: str) -> list[Row]:
    # Split at line feeds alone: other line breaks may stand inside strings.
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_object(_parsed(line, where), where) for where, line in lines]


def _parsed(text: str, where: str) -> object:
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
