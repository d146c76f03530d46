"""All records of a study as one table, also of a million of them: point by point, column by column.

Plain values keep their kind; what is no plain value, or of several kinds, is JSON.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.files import read_json_lines
from videopool.results.errors import ResultsError
from videopool.results.point import RECORDS

PARQUET = "records.parquet"  # of an export
POINT = "point"
PLAIN: dict[type, str] = {str: "string", float: "float64", int: "int64", bool: "bool"}
JSON = "json"


def load_records(
    study: str | Path, columns: Sequence[str] | None = None, points: Iterable[str] | None = None
) -> pd.DataFrame:
    """The records of a study's points, or of an export, one row each, with the point's name in `point`.

    Args:
        columns: of records, as in ["clip", "task", "score"]; None for all. Only they are kept in memory; texts that
            repeat are categories.
        points: names of folders; None for all.

    Raises ResultsError for a folder without records, or a column that no record has.
    """
    study, wanted = Path(study), None if columns is None else list(dict.fromkeys([POINT, *columns]))
    chosen = None if points is None else set(points)
    if (study / PARQUET).is_file() and chosen is None:
        table = _of_parquet(study / PARQUET, wanted)
    else:
        folders = [folder for folder in _folders(study) if chosen is None or folder.name in chosen]
        if not folders:
            raise ResultsError(f"{study}: no point with records")
        table = pd.concat([_of_point(folder, wanted) for folder in folders], ignore_index=True)
    if wanted and (missing := [name for name in wanted if name not in table]):
        raise ResultsError(f"{study}: no record has the column {missing[0]!r}; there are {', '.join(map(str, table))}")
    for name in table.select_dtypes(["object", "string"]):
        table[name] = table[name].astype("category")
    return table if wanted is None else table[wanted]


def _folders(study: Path) -> list[Path]:
    return [path.parent for path in sorted(study.glob(f"*/{RECORDS}"))]


def _of_parquet(file: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    try:
        return pd.read_parquet(file, columns=columns)
    except ImportError as error:
        raise ResultsError(f"{file}: parquet needs pyarrow, the extra `parquet`: pip install pyarrow") from error
    except (ValueError, KeyError) as error:  # pyarrow's for a column that is not there
        raise ResultsError(f"{file}: {str(error).splitlines()[0]}") from error


def _of_point(folder: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    rows = _rows(folder)
    if columns is not None:
        rows = ({name: row[name] for name in columns if name in row} for row in rows)
    table = pd.DataFrame([{name: _plain(value) for name, value in row.items()} for row in rows])
    for name in table.select_dtypes(["object", "string"]):
        table[name] = table[name].astype("category")
    return table


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a point, each sample's first, with its name."""
    seen: set[str] = set()
    for record in read_json_lines(folder / RECORDS):
        if "id" in record and (own := str(record["id"])) not in seen:
            seen.add(own)
            yield {POINT: folder.name, **record}


def _plain(value: Any) -> Any:
    return value if value is None or type(value) in PLAIN else json.dumps(value, ensure_ascii=False)


def write_parquet(study: Path, points: Sequence[str], path: Path) -> None:
    """Write the records of some points into one parquet file, a row group each. Needs pyarrow."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds: dict[str, set[type]] = {}
    for name in points:
        for row in _rows(study / name):
            for key, value in row.items():
                kinds.setdefault(key, set()).add(type(value))
    forms = {key: _form(own - {type(None)}) for key, own in kinds.items()}
    types = {"string": pa.string(), JSON: pa.string(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
    schema = pa.schema([(key, types[form]) for key, form in forms.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        for name in points:
            rows = [_formed(row, forms) for row in _rows(study / name)]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))


def _form(kinds: set[type]) -> str:
    """What a column becomes whose values are of some kinds."""
    if kinds == {int, float}:
        return "float64"
    only = next(iter(kinds)) if len(kinds) == 1 else None
    return PLAIN.get(only, JSON) if only else JSON


def _formed(row: Mapping[str, Any], forms: Mapping[str, str]) -> dict[str, Any]:
    """A row with what its columns hold; None where it has nothing."""
    return {
        key: json.dumps(row[key], ensure_ascii=False) if form == JSON and row.get(key) is not None else row.get(key)
        for key, form in forms.items()
    }
