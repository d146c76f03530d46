"""Annotations that nest questions in objects, and sets that are released in several files, as plain rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from videopool.benchmarks.columns import LeftOut, Row
from videopool.benchmarks.errors import BenchmarkError, spare
from videopool.benchmarks.tables import KINDS, full_text, objects, parsed, read_table, some

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


def read_nested(
    path: Path, key: str, levels: Sequence[str] = (), inner: str | None = None, left_out: LeftOut = None
) -> list[Row]:
    """The questions of a file, as rows with the columns of all that they stand in, and `file`.

    Args:
        levels: what the keys of nested JSON objects are, from the outside in: [video_id, dim] reads
            {"v1": {"speed": [{...}, ...]}}. A file that is a list all the same is read as one.
        inner: the column that holds the list of a row's questions; a row without it is a question.

        left_out: takes the errors about questions that cannot be read.

    Raises BenchmarkError as read_table does, and for an object that is nested otherwise.
    """
    content = parsed(full_text(path, key), str(path)) if levels and path.suffix.lower() == ".json" else None
    if content is None or isinstance(content, list):
        rows = read_table(path, key, left_out)
    else:
        rows = _below(content, str(path), levels, left_out)
    rows = [question for row in rows for question in (_questions(row, inner, left_out) if inner else [row])]
    name = path.stem
    return [row.with_cells({FILE: name, **row.cells}) for row in some(rows, path, key, left_out)]


def _below(content: object, where: str, levels: Sequence[str], left_out: LeftOut) -> list[Row]:
    """The rows of an object whose keys are the values of the first level."""
    if levels:
        if not isinstance(content, Mapping):
            kind = type(content).__name__
            raise BenchmarkError(f"{where}: an object with one entry for each {levels[0]} is expected, got {kind}")
        below = [(name, _below(part, f"{where}, {name!r}", levels[1:], left_out)) for name, part in content.items()]
        return [row.with_cells({levels[0]: name, **row.cells}) for name, rows in below for row in rows]
    if isinstance(content, list):
        return objects(content, where, left_out)
    if isinstance(content, dict):
        return [Row(where, content)]
    spare(BenchmarkError(f"{where}: an object is expected, got {type(content).__name__}"), left_out)
    return []


def _questions(row: Row, inner: str, left_out: LeftOut) -> list[Row]:
    """The row itself, or a row for each of its questions."""
    if inner not in row.cells:
        return [row]
    questions = row.cells[inner]
    if not isinstance(questions, list) or not all(isinstance(question, dict) for question in questions):
        spare(row.error(f"the field {inner!r} must be a list of objects"), left_out)
        return []
    outer = {name: value for name, value in row.cells.items() if name != inner}
    return [Row(f"{row.where}, question {n}", {**outer, **own}) for n, own in enumerate(questions)]
