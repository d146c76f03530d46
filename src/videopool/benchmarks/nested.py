"""Annotations that nest questions in objects, and sets that are released in several files, as plain rows."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.tables import KINDS, Row, parsed, read_table, text_of

FILE = "file"  # the column with the name of a row's file, without suffix


def files_of(annotations: Path, parts: Sequence[str] | None, key: str) -> list[Path]:
    """A file, or the files of a folder in the order of their names; `parts`: names (without suffix) of those to read.

    Raises BenchmarkError for a folder without one of them, naming it.
    """
    if not annotations.is_dir():
        return [annotations]
    there = {file.stem: file for file in sorted(annotations.iterdir()) if file.suffix.lower() in KINDS}
    there = {name: file for name, file in there.items() if not name.startswith(".")}
    if missing := [name for name in parts or () if name not in there]:
        raise BenchmarkError(f"{key}={annotations}: there is no {missing[0]}.json, .parquet or the like")
    if not there:
        raise BenchmarkError(f"{key}={annotations}: there is no annotation file; {' '.join(KINDS)} can be read")
    return [there[name] for name in parts or there]


def read_nested(path: Path, key: str, levels: Sequence[str] = (), inner: str | None = None) -> list[Row]:
    """The questions of a file, as rows with the columns of all that they stand in, and `file`.

    Args:
        levels: what the keys of nested JSON objects are, from the outside in: [video_id, dim] reads
            {"v1": {"speed": [{...}, ...]}}. A file that is a list all the same is read as one.
        inner: the column that holds the list of a row's questions; a row without it is a question.

    Raises BenchmarkError as read_table does, and for an object that is nested otherwise.
    """
    content = parsed(text_of(path, key), str(path)) if levels and path.suffix.lower() == ".json" else None
    rows = read_table(path, key) if content is None or isinstance(content, list) else _below(content, str(path), levels)
    rows = [question for row in rows for question in (_questions(row, inner) if inner else [row])]
    if not rows:
        raise BenchmarkError(f"annotation file {path}: no usable sample was found ({key})")
    name = path.stem
    return [row.with_cells({FILE: name, **row.cells}) for row in rows]


def _below(content: object, where: str, levels: Sequence[str]) -> list[Row]:
    """The rows of an object whose keys are the values of the first level."""
    if levels:
        if not isinstance(content, Mapping):
            kind = type(content).__name__
            raise BenchmarkError(f"{where}: an object with one entry for each {levels[0]} is expected, got {kind}")
        below = [(name, _below(part, f"{where}, {name!r}", levels[1:])) for name, part in content.items()]
        return [row.with_cells({levels[0]: name, **row.cells}) for name, rows in below for row in rows]
    entries = list(enumerate(content)) if isinstance(content, list) else [(-1, content)]
    return [_row(entry, f"{where}, entry {number}" if number >= 0 else where) for number, entry in entries]


def _row(entry: object, where: str) -> Row:
    if not isinstance(entry, dict):
        raise BenchmarkError(f"{where}: an object is expected, got {type(entry).__name__}")
    return Row(where, entry)


def _questions(row: Row, inner: str) -> Iterator[Row]:
    """The row itself, or a row for each of its questions."""
    if inner not in row.cells:
        yield row
        return
    questions = row.cells[inner]
    if not isinstance(questions, list) or not all(isinstance(question, dict) for question in questions):
        raise row.error(f"the field {inner!r} must be a list of objects")
    outer = {name: value for name, value in row.cells.items() if name != inner}
    for number, own in enumerate(questions):
        yield Row(f"{row.where}, question {number}", {**outer, **own})
