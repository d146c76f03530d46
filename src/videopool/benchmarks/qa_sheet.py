"""Sheets with one question per row: IG-VLM's (arXiv 2403.18406), similar ones, and a user's own."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.rows import FRAMES_PER_SECOND, samples_of
from videopool.benchmarks.splits import check_split
from videopool.benchmarks.tables import Columns, Row, plain_name, read_table, renamed

NEEDED = ("video_name", "question")
# Headings that seem to be the answer's.
ANSWERS = re.compile(
    r"answers|label|solution|correctanswer|groundtruth|answer_(?:idx|index|id|number|letter|text|option|choice|key)"
    r"|(?:gt|ground_truth|truth|gold|correct|right|true)(?:_(?:answer|option|choice|label|idx|index|id|letter))?"
)


def load_qa_sheet(
    root: str | Path,
    annotations: str | Path,
    id: str = "qa_sheet",
    split: str = "own",
    columns: Columns | None = None,
    answers: str = "auto",
    repeated_ids: str = "refuse",
    task_names: Mapping[object, str] | None = None,
    bounds_in_name: bool = False,
    fps: float = FRAMES_PER_SECOND,
    prefixes: Sequence[str] = (),
    recursive: bool = False,
    split_sizes: Mapping[str, int] | None = None,
    limit: int | None = None,
    key: str = "benchmark.annotations",
    **settings: Any,
) -> Benchmark:
    """Read a sheet (CSV, TSV, JSON or JSON lines). conf/benchmark/qa_sheet.yaml explains the arguments.

    `key` is the sheet's key in the configuration, for messages; `settings` are Benchmark's. Raises BenchmarkError for a
    missing folder or file, or an unusable row, naming it.
    """
    clips, sheet = ClipFolder(root, prefixes, recursive), Path(annotations)
    rows = renamed(read_table(sheet, key), columns or {}, NEEDED)
    _check_answers(rows)
    check_split(split, sheet, len(rows), split_sizes)
    samples = samples_of(rows, clips, answers, repeated_ids, task_names, bounds_in_name, fps)
    return Benchmark(f"{id}/{split}", split, samples[:limit], hash_files([sheet]), **settings)


def _check_answers(rows: Sequence[Row]) -> None:
    """Raises BenchmarkError if there is no column of answers, but one that looks like it."""
    if any("answer" in row.cells for row in rows):
        return
    for name in rows[0].cells:
        if ANSWERS.fullmatch(plain_name(name)):
            raise rows[0].heading_error(
                f"there is no column 'answer', and {name!r} looks like it; "
                f"say benchmark.columns.answer={name!r}, or benchmark.columns.answer=[] to score nothing"
            )
