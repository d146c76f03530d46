"""A study as one folder for others: records, manifests, tables, figures, a card; and whether its numbers are true."""

import hashlib
import importlib.util
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from videopool import __version__
from videopool.files import whole_folder, write_text
from videopool.reports.cells import spreadsheet
from videopool.reports.files import REPORTED, write_report
from videopool.results import ResultsError, compared_study, over_seeds
from videopool.results.all_records import PARQUET, write_parquet
from videopool.results.errors import writing
from videopool.results.point import MANIFEST, METRICS, RECORDS, read_json, write_json
from videopool.results.recount import alike, recount
from videopool.results.study import scored_points

CARD, CONTENTS = "README.md", "export.json"
CARD_TEXT = """\
# {name}

Poolings of visual tokens, measured with VideoPool {version}. Intervals are 95 %, clustered by clip; differences are
paired by sample.

{facts}

## Results

{tables}
## Files

`<point>/records.jsonl` has a line per sample, `records.parquet` all of them; `<point>/run.json` says what a point is,
`<point>/metrics.json` its numbers, `sweep.csv` the table. `videopool job=verify job.folder=.` computes every number
again from the records.
"""


def export(study: Path, target: Path, baseline: str, points: Sequence[str] | None = None) -> list[str]:
    """Write a study's complete points (or some of them) into one folder, which replaces an earlier export whole.

    Absolute paths in manifests are cut to their last part; clips and their pictures stay behind. records.parquet holds
    all records too where pyarrow is installed, with what is no plain value as JSON. Returns the names of the files.

    Raises ResultsError if there is no complete point, none of a name, or the disk is full.
    """
    there = {folder.name: folder for folder in scored_points(study) if read_json(folder / METRICS)}
    wanted = list(there) if points is None else list(points)
    if missing := [name for name in wanted if name not in there]:
        raise ResultsError(f"{study}: no complete point {missing[0]}; there are: {', '.join(there) or 'none'}")
    if not wanted:
        raise ResultsError(f"{study}: no point is complete, so there is nothing to export")
    if target.exists() and not (target / CONTENTS).is_file() and any(target.iterdir()):
        raise ResultsError(f"job.to={target}: this folder holds something else; name another")
    with writing(target), whole_folder(target) as part:
        for name in wanted:
            (part / name).mkdir()
            for file in (RECORDS, METRICS):
                shutil.copyfile(there[name] / file, part / name / file)
            write_json(part / name / MANIFEST, _without_paths(read_json(there[name] / MANIFEST) or {}))
        _, table = write_report(part, baseline, samples=0, name=study.name)
        (part / REPORTED).unlink()
        if importlib.util.find_spec("pyarrow"):
            write_parquet(part, wanted, part / PARQUET)
        write_text(part / CARD, _card(study.name, table, (part / "table.md").read_text(encoding="utf-8")))
        sums = {str(file.relative_to(part)): _sum(file) for file in sorted(part.rglob("*")) if file.is_file()}
        content = {"videopool": __version__, "study": study.name, "baseline": baseline, "files": sums}
        write_json(part / CONTENTS, content)
    return [str(target / name) for name in (*sums, CONTENTS)]


def _without_paths(content: Any) -> Any:
    """A manifest without the places of the machine that it was made on."""
    if isinstance(content, dict):
        return {key: _without_paths(value) for key, value in content.items() if key != "command"}
    if isinstance(content, list):
        return [_without_paths(value) for value in content]
    if isinstance(content, str) and os.path.isabs(content):
        return os.path.basename(content.rstrip("/"))
    return content


def _card(name: str, table: pd.DataFrame, tables: str) -> str:
    """What was compared, at which budgets, with which intervals, and how to check it."""
    facts = {
        "models": sorted(set(table.model.dropna())),
        "benchmarks": sorted(set(table.benchmark.dropna())),
        "poolings": sorted(set(table.pooling.dropna())),
        "frames": sorted(set(table.frames.dropna())),
        "visual tokens": sorted({round(float(number), 1) for number in table.visual_tokens.dropna()}),
        "samples": sorted(set(table.n.dropna())),
    }
    lines = [f"- {key}: {', '.join(f'{one:g}' if isinstance(one, float) else str(one) for one in values)}"
             for key, values in facts.items()]  # fmt: skip
    return CARD_TEXT.format(name=name, version=__version__, facts="\n".join(lines), tables=tables)


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def verify(folder: Path, baseline: str, step: Callable[[str], None] = lambda what: None) -> tuple[int, list[str]]:
    """How many numbers of an export, or of a study, its records give again, and a line for each fault.

    Checked are the sums of an export's files, metrics.json of each complete point, and each cell of the tables in
    sweep.csv and seeds.csv. baseline: of a study; an export says its own.

    Raises ResultsError if the folder holds no complete point.
    """
    content = read_json(folder / CONTENTS)
    points = [path for path in scored_points(folder) if content is not None or (path / METRICS).exists()]
    if not points:
        raise ResultsError(f"{folder}: neither an export nor a study with a complete point")
    count, faults = 0, list[str]()
    if content is not None:
        baseline, sums = str(content.get("baseline")), dict(content.get("files", {}))
        step("sums of files")
        faults += list(_changed(folder, sums))
        count += len(sums)
    for path in points:
        step(path.name)
        checked, wrong = recount(path)
        count, faults = count + checked, faults + wrong
    step("tables")
    checked, wrong = _tables(folder, baseline)
    return count + checked, faults + wrong


def _changed(folder: Path, sums: dict[str, str]) -> Iterator[str]:
    there = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} - {CONTENTS}
    for name in sorted({*sums, *there}):
        if name not in there:
            yield f"{name}: this file is missing"
        elif name not in sums:
            yield f"{name}: this file does not belong to the export"
        elif _sum(folder / name) != sums[name]:
            yield f"{name}: not the file that was exported (its SHA-256 differs)"


def _tables(folder: Path, baseline: str) -> tuple[int, list[str]]:
    """Cells of the tables that are computed again, and a line for each that differs."""
    table = compared_study(folder, baseline)
    made = {"sweep.csv": table.drop(columns="folder"), "seeds.csv": over_seeds(table, baseline)}
    count, faults = 0, list[str]()
    for name, frame in made.items():
        if not (folder / name).is_file():
            continue  # a point that ran alone has none; of an export, the sums tell
        told, found = (
            _complete(_cells(text)) for text in ((folder / name).read_text(encoding="utf-8"), spreadsheet(frame))
        )
        rows = [list(one.get("point", one.index)) for one in (told, found)]
        if list(told) != list(found) or rows[0] != rows[1]:
            faults.append(f"{name}: other rows or columns than the records give; videopool job=report writes it anew")
            continue
        for column in found:
            for number, pair in enumerate(zip(told[column], found[column], strict=True)):
                count += 1
                if not alike(*map(_number, pair)):
                    point = found.iloc[number].get("point", f"row {number + 1}")
                    faults.append(f"{name}: {point}: {column} is {pair[0] or 'empty'}, the records give {pair[1]}")
    return count, faults


def _cells(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


def _complete(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of complete points: others have no numbers, and may have begun since."""
    return cells[cells.status == "complete"].reset_index(drop=True) if "status" in cells else cells


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
