"""Video-MME (arXiv 2405.21075): its table as JSON or JSON lines, one object a question or one a video."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.rows import samples_of
from videopool.benchmarks.splits import check_split
from videopool.benchmarks.tables import Row, read_table

TASKS = ("duration", "domain", "sub_category", "task_type")
NUMBERED = re.compile(r"\(?([A-Z])[.):]\s*(.*)", re.DOTALL)


def load_video_mme(
    root: str | Path,
    annotations: str | Path,
    id: str = "video_mme",
    split: str = "test",
    tasks: str = "duration",
    recursive: bool = False,
    groups: Mapping[str, Sequence[str]] | None = None,
    headline: str | None = None,
    scoring: str = "likelihood",
    max_new_tokens: int = 32,
    limit: int | None = None,
) -> Benchmark:
    """Read questions with video_id, videoID, duration, domain, question_id, question, options and answer (a letter).

    Clips are named by videoID, or by video_id where there is none. Options lose the letter they begin with, which
    prompts put before each option again. Questions may stand in a list `questions` of their video.

    Args:
        root: the folder of the clips.
        annotations: the file; the release's parquet file can be exported with pandas.
        tasks: the field that scores are broken down by: duration, domain, sub_category or task_type.
        recursive: clips may lie in folders below root.
        groups, headline: see Benchmark.
        limit: at most so many questions, the first ones.

    Raises:
        BenchmarkError: no such folder or file, or an entry that cannot be used, naming it.
    """
    if tasks not in TASKS:
        raise BenchmarkError(f"benchmark.tasks={tasks!r}: choose one of {', '.join(TASKS)}")
    clips, file = ClipFolder(root, recursive=recursive), Path(annotations)
    check_split(split, file, 0, {})
    rows = [_row(question, tasks) for row in read_table(file, "benchmark.annotations") for question in _questions(row)]
    return Benchmark(
        id=f"{id}/{split}",
        split=split,
        samples=samples_of(rows, clips, answers="letter")[:limit],
        annotation_hash=hash_files([file]),
        groups={name: list(members) for name, members in (groups or {}).items()},
        headline=headline,
        scoring=scoring,
        max_new_tokens=max_new_tokens,
    )


def _questions(row: Row) -> list[Row]:
    """The row itself, or one for each of its questions."""
    if "questions" not in row.cells:
        return [row]
    listed = row.cells["questions"]
    if not isinstance(listed, list) or not all(isinstance(question, dict) for question in listed):
        raise row.error("the field 'questions' must be a list of objects")
    return [Row(f"{row.where}, question {number}", {**row.cells, **question}) for number, question in enumerate(listed)]


def _row(row: Row, tasks: str) -> Row:
    name = "videoID" if row.text("videoID") else "video_id"
    options = row.cells.get("options")
    if not isinstance(options, list) or not options:
        raise row.error(f"the field 'options' must be a list of texts, got {type(options).__name__}")
    row.text("question", required=True)
    cells = {
        "video_name": row.text(name, required=True),
        "question": row.cells["question"],
        "question_id": row.text("question_id", required=True),
        "question_type": row.text(tasks),
        "options": _without_letters([row.as_text(option, "options") for option in options]),
        "answer": row.text("answer").rstrip("."),
    }
    return Row(row.where, cells)


def _without_letters(options: list[str]) -> list[str]:
    """Options without the letters in front, if each has its own."""
    parted = [NUMBERED.fullmatch(option) for option in options]
    letters = [match.group(1) if match else None for match in parted]
    if letters != list(ascii_uppercase[: len(options)]):
        return options
    return [match.group(2) for match in parted if match]
