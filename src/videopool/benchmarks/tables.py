"""Annotation files as rows: CSV, TSV, JSON, JSON lines, parquet."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from videopool.benchmarks.columns import LISTED, LeftOut, Row
from videopool.benchmarks.errors import BenchmarkError, listed, spare

SEPARATORS = {".csv": ",", ".tsv": "\t"}
OTHERS = ",;\t|"  # separators of tables with either suffix
SEPARATOR_LINE = re.compile(r"\ufeff?sep=([,;|\t])", re.IGNORECASE)  # spreadsheets' first line
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
POINTER = b"version https://git-lfs"
KINDS = (*SEPARATORS, ".json", *JSON_LINES, PARQUET)


def read_table(path: Path, key: str, left_out: LeftOut = None) -> list[Row]:
    """All rows of an annotation file, whose suffix gives its format. Files are UTF-8, with or without a BOM.

    A table has its column names in the first line; fields may be quoted and hold line breaks. Its separator is the one
    of the column names: comma, tab, semicolon or bar. JSON is a list of objects, JSON lines one object per line, also
    in a file called .json. Of parquet, columns of bytes (frames, sound) are not read.

    Messages name `key`, the file's key in the configuration. Raises BenchmarkError for a missing, empty or malformed
    file, naming the place, and for another format. Malformed rows go to `left_out`, if given; but not the last one,
    after which the file may have been cut off.
    """
    kind = path.suffix.lower()
    if kind not in KINDS and path.is_file():
        raise BenchmarkError(f"annotation file {path}: {' '.join(KINDS)} can be read ({key})")
    if kind == PARQUET:
        return some(_parquet_rows(path, key), path, key, None)
    text = full_text(path, key)
    if kind in SEPARATORS:
        rows = _table_rows(path, text, SEPARATORS[kind], left_out)
    elif kind in JSON_LINES or _in_lines(text):  # split at line feeds alone: other line breaks may stand in strings
        rows = _rows_of_lines(path, text, left_out)
    else:
        rows = json_rows(path, text, left_out)
    return some(rows, path, key, left_out)


def some(rows: list[Row], path: Path, key: str, left_out: LeftOut) -> list[Row]:
    """The rows of a file. Raises BenchmarkError if there are none: that of a row that was left out, if one was."""
    if not rows:
        raise (
            left_out[-1] if left_out else BenchmarkError(f"annotation file {path}: no usable sample was found ({key})")
        )
    return rows


def full_text(path: Path, key: str) -> str:
    """The text of an annotation file that must not be empty. Raises BenchmarkError."""
    text = text_of(path, key)
    if not text.strip():
        raise BenchmarkError(f"annotation file {path} is empty ({key})")
    return text


def check_file(path: Path, key: str) -> None:
    """Raises BenchmarkError for a missing file, for a folder, and for what stands in place of a file in Git LFS."""
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.suffix.lower() in KINDS)
        there = f", as {listed(names)}" if names else ""
        raise BenchmarkError(f"{key}={path} is a folder: give a file{there}")
    if not path.is_file():
        raise BenchmarkError(f"annotation file {path} does not exist ({key})")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise BenchmarkError(f"annotation file {path} is a Git LFS pointer; fetch it with git lfs pull")


def text_of(path: Path, key: str) -> str:
    """The text of an annotation file. Raises BenchmarkError as check_file(), and for a byte that is not UTF-8."""
    try:
        check_file(path, key)
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


def _rows_of_lines(path: Path, text: str, left_out: LeftOut) -> list[Row]:
    lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows: list[Row] = []
    for where, line in lines:
        try:
            rows.append(_object(parsed(line, where), where))
        except BenchmarkError as error:
            spare(error, None if line is lines[-1][1] else left_out)
    return rows


def _table_rows(path: Path, text: str, usual: str, left_out: LeftOut = None) -> list[Row]:
    separator, name = _separator(text.lstrip("\r\n"), usual), str(path)
    # The csv module splits lines itself; strict: a quote that is never closed must not swallow the rest.
    lines = io.StringIO(text, newline="").readlines()
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header: list[str] = []
    heading = ""
    rows: list[Row] = []
    faulty: BenchmarkError | None = None  # the row before
    while True:
        where = f"{name}, line {reader.line_num + 1}"
        begins = reader.line_num
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if faulty or not header or reader.line_num > begins + 1:  # a quote that is never closed took several lines
                raise BenchmarkError(f"{where}: malformed row: {error}") from error
            fields = lines[begins].rstrip("\r\n").split(separator)
            if separator != "\t" or len(fields) != len(header):  # between tabs, a quote may be part of the text
                faulty = BenchmarkError(f"{where}: malformed row: {error}")
                continue
        if faulty:
            spare(faulty, None if fields is None else left_out)  # nothing follows a row that was cut off
            faulty = None
        if fields is None:
            return rows
        if not fields or (not header and SEPARATOR_LINE.match(separator.join(fields))):
            continue
        if not header:
            header, heading = [name.strip(" \t\r\n\ufeff\xa0") for name in fields], where
            if twice := sorted({name for name in header if name and header.count(name) > 1}):
                raise BenchmarkError(f"{where}: the column {twice[0]!r} stands twice")
        elif len(fields) != len(header):
            faulty = BenchmarkError(f"{where}: malformed row: {len(fields)} fields, the header has {len(header)}")
        else:
            rows.append(Row(where, dict(zip(header, fields, strict=True)), heading))


def _parquet_rows(path: Path, key: str) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise BenchmarkError(
            f"annotation file {path}: parquet needs pyarrow, the extra `parquet`: pip install pyarrow ({key})"
        ) from error
    check_file(path, key)
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


def json_rows(path: Path, text: str, left_out: LeftOut = None) -> list[Row]:
    """The rows of a JSON text. Raises BenchmarkError unless it is a list of objects; for an entry that is none, if
    there is no list `left_out` for that.
    """
    content = parsed(text, str(path))
    if not isinstance(content, list):
        keys = f" with {', '.join(map(repr, list(content)[:LISTED]))}" if isinstance(content, dict) else ""
        raise BenchmarkError(f"{path}: a list of objects is expected, got {type(content).__name__}{keys}")
    return objects(content, str(path), left_out)


def objects(entries: Sequence[object], where: str, left_out: LeftOut = None) -> list[Row]:
    """Entries of a JSON list as rows. Raises BenchmarkError for one that is no object, or puts that into `left_out`."""
    rows: list[Row] = []
    for number, entry in enumerate(entries):
        try:
            rows.append(_object(entry, f"{where}, entry {number}"))
        except BenchmarkError as error:
            spare(error, left_out)
    return rows


def parsed(text: str, where: str) -> object:
    """The content of a JSON text. Raises BenchmarkError for any other text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where if ", line" in where else f"{where}, line {error.lineno}"
        cut = error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip())
        hint = "; the file seems to be cut off: fetch it again" if cut else ""
        raise BenchmarkError(f"{place}: not JSON: {error.msg} at column {error.colno}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where}: not JSON that can be read: {error}") from error


def _object(entry: object, where: str) -> Row:
    if not isinstance(entry, dict):
        raise BenchmarkError(f"{where}: an object is expected, got {type(entry).__name__}")
    return Row(where, entry)
