"""Sheets of questions, one a row: IG-VLM's (arXiv 2403.18406), others of that kind, and a user's own."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    groups: Mapping[str, Sequence[str]] | None = None,
    headline: str | None = None,
    split_sizes: Mapping[str, int] | None = None,
    scoring: str = "likelihood",
    max_new_tokens: int = 32,
    limit: int | None = None,
) -> Benchmark:
    """Read a sheet: CSV, TSV, JSON or JSON lines.

    Args:
        root: the folder of the clips.
        annotations: the sheet: video_name, question, and optionally answer, options (see options.py), question_id,
            question_type, start, end, fps.
        columns: the sheet's own names for these, where they differ.
        answers, repeated_ids, task_names, bounds_in_name, fps: see samples_of.
        prefixes, recursive: see ClipFolder.
        groups, headline: see Benchmark.
        split_sizes: questions of the benchmark's splits; a larger file is no file of that split.
        limit: at most so many questions, the first ones.

    Raises:
        BenchmarkError: no such folder or file, or a row that cannot be used, naming it.
    """
    clips, sheet = ClipFolder(root, prefixes, recursive), Path(annotations)
    rows = read_sheet(sheet, "benchmark.annotations", columns)
    check_split(split, sheet, len(rows), split_sizes or {})
    samples = samples_of(rows, clips, answers, repeated_ids, task_names, bounds_in_name, fps)
    return Benchmark(
        id=f"{id}/{split}",
        split=split,
        samples=samples[:limit],
        annotation_hash=hash_files([sheet]),
        groups={name: list(members) for name, members in (groups or {}).items()},
        headline=headline,
        scoring=scoring,
        max_new_tokens=max_new_tokens,
    )


def read_sheet(sheet: Path, key: str, columns: Columns | None) -> list[Row]:
    """The rows of a sheet, under our names.

    Args:
        key: what the configuration calls the file.
        columns: the sheet's own names, where they differ.

    Raises:
        BenchmarkError: a file that cannot be read, or a column that is missing.
    """
    rows = renamed(read_table(sheet, key), columns or {}, NEEDED)
    if not any("answer" in row.cells for row in rows):
        for name in rows[0].cells:
            if ANSWERS.fullmatch(plain_name(name)):
                raise rows[0].heading_error(
                    f"there is no column 'answer', and {name!r} looks like it; "
                    f"say benchmark.columns.answer={name!r}, or benchmark.columns.answer=[] to score nothing"
                )
    return rows
