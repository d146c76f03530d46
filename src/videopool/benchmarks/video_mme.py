"""Video-MME (arXiv 2405.21075): its table as JSON or JSON lines, with one object per question or per video."""

import re
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import check_choice
from videopool.benchmarks.rows import check_split, samples_of
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
    limit: int | None = None,
    **settings: Any,
) -> Benchmark:
    """Read questions with video_id, videoID, duration, domain, question_id, question, options and answer (a letter).

    Clips are named by videoID, or else by video_id. Options lose their letters, which prompts add again. Questions may
    stand in a list `questions` of their video.

    conf/benchmark/video_mme.yaml explains the arguments; `settings` are Benchmark's. Raises BenchmarkError for a
    missing folder or file, or an unusable entry, naming it.
    """
    check_choice("benchmark.tasks", tasks, TASKS)
    clips, file = ClipFolder(root, recursive=recursive), Path(annotations)
    check_split(split, file)
    rows = [_row(question, tasks) for row in read_table(file, "benchmark.annotations") for question in _questions(row)]
    samples = samples_of(rows, clips, answers="letter")
    return Benchmark(f"{id}/{split}", split, samples[:limit], hash_files([file]), **settings)


def _questions(row: Row) -> list[Row]:
    """The row itself, or a row for each of its questions."""
    if "questions" not in row.cells:
        return [row]
    questions = row.cells["questions"]
    if not isinstance(questions, list) or not all(isinstance(question, dict) for question in questions):
        raise row.error("the field 'questions' must be a list of objects")
    return [Row(f"{row.where}, question {number}", {**row.cells, **own}) for number, own in enumerate(questions)]


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
    """Options without their letters, if these are A, B, ... in order."""
    matches = [match for option in options if (match := NUMBERED.fullmatch(option))]
    in_order = [match[1] for match in matches] == list(ascii_uppercase[: len(options)])
    return [match[2] for match in matches] if in_order else options
