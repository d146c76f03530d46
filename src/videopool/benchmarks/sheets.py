"""A user's own material: a folder of clips, with or without a sheet of questions, and questions in two JSON files."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, Sample, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.collecting import without_collector
from videopool.benchmarks.columns import Columns, Row, plain_name, renamed
from videopool.benchmarks.errors import BenchmarkError, listed
from videopool.benchmarks.rows import FRAMES_PER_SECOND, check_split, ids_of, samples_of, spared, tell_left_out
from videopool.benchmarks.tables import read_table
from videopool.notes import note
from videopool.video import VIDEO_SUFFIXES, animation, is_hidden, printable

# Headings that seem to be the answer's.
ANSWERS = re.compile(
    r"answers|label|solution|correctanswer|groundtruth|answer_(?:idx|index|id|number|letter|text|option|choice|key)"
    r"|(?:gt|ground_truth|truth|gold|correct|right|true)(?:_(?:answer|option|choice|label|idx|index|id|letter))?"
)


@without_collector()
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
    bad_rows: str = "refuse",
    key: str = "benchmark.annotations",
    **settings: Any,
) -> Benchmark:
    """Read a sheet (CSV, TSV, JSON or JSON lines) with one question per row: IG-VLM's (arXiv 2403.18406) or similar.

    conf/benchmark/qa_sheet.yaml explains the arguments. `key` is the sheet's key in the configuration, for messages;
    `settings` are Benchmark's. Raises BenchmarkError for a missing folder or file, or an unusable row, naming it.
    """
    clips, sheet, left_out = ClipFolder(root, prefixes, recursive), Path(annotations), spared(bad_rows)
    rows = renamed(read_table(sheet, key, left_out), columns or {}, ("video_name", "question"), left_out=left_out)
    every = len(rows) + len(left_out or ())
    _check_answers(rows)
    check_split(split, sheet, len(rows), split_sizes)
    samples = samples_of(rows, clips, answers, repeated_ids, task_names, bounds_in_name, fps, left_out)
    tell_left_out(left_out, f"benchmark {id}/{split}", every)
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


def load_clips(
    root: str | Path,
    questions: str | Path | None = None,
    limit: int | None = None,
    recursive: bool = False,
    id: str = "clips",
    split: str = "own",
    columns: Columns | None = None,
    answers: str = "auto",
    **settings: Any,
) -> Benchmark:
    """Read a folder of videos and of animated WebP and PNG images; one line on stderr names its other files.

    conf/benchmark/clips.yaml explains the arguments; `settings` are Benchmark's. Raises BenchmarkError for a missing
    folder or file, a malformed row (naming its line), or a folder without clips.
    """
    settings = {"max_new_tokens": 64, **settings}
    if questions is not None:
        settings |= {"recursive": recursive, "limit": limit, "key": "benchmark.questions"}
        return load_qa_sheet(root, questions, id, split, columns, answers, **settings)
    folder = ClipFolder(root).root
    files = sorted(p for p in (folder.rglob("*") if recursive else folder.glob("*")) if p.is_file())
    files = [p for p in files if not any(map(is_hidden, p.relative_to(folder).parts))]
    videos = {p: p.suffix.lower() in VIDEO_SUFFIXES or animation(p) for p in files}
    names = {p: printable(p.relative_to(folder).as_posix()) for p in files}
    samples = [Sample(id=names[p], clip=p, clip_id=names[p], question="") for p in files if videos[p]]
    if not samples:
        raise BenchmarkError(f"benchmark.root={root}: no video found; suffixes: {' '.join(sorted(VIDEO_SUFFIXES))}")
    if others := [names[p] for p in files if not videos[p]]:
        note(f"benchmark.root={root}: {len(others)} of {len(files)} files are no videos: {listed(others)}", once=True)
    names_hash = hashlib.sha256("\0".join(sample.id for sample in samples).encode()).hexdigest()
    return Benchmark(f"{id}/{split}", split, samples[:limit], names_hash, **settings)


@without_collector()
def load_qa_pairs(
    root: str | Path,
    annotations: str | Path,
    id: str,
    split: str = "test",
    questions: str = "test_q.json",
    answers: str = "test_a.json",
    columns: Columns | None = None,
    repeated_ids: str = "refuse",
    task_names: Mapping[object, str] | None = None,
    prefixes: Sequence[str] = (),
    recursive: bool = False,
    limit: int | None = None,
    **settings: Any,
) -> Benchmark:
    """Read the layout of ActivityNet-QA and of Video-LLaVA's others: open questions and answers in two files.

    <annotations>/test_q.json has video_name, question, question_id; test_a.json has answer, question_id, type. The id
    joins them, whatever their order. conf/benchmark/qa_pairs.yaml explains the arguments; `settings` are Benchmark's.

    Raises BenchmarkError for a missing folder or file, a malformed entry, or a question without answer or the reverse.
    """
    clips, folder = ClipFolder(root, prefixes, recursive), Path(annotations)
    files = [folder / questions, folder / answers]
    for file in files:
        if not file.is_file():
            both = f"give the folder with {questions} and {answers}"
            raise BenchmarkError(f"benchmark.annotations={folder}: {file.name} does not exist; {both}")
    asked, answered = (read_table(file, "benchmark.annotations") for file in files)
    asked = renamed(asked, columns or {}, ("video_name", "question", "question_id"))
    answered = renamed(answered, {}, ("answer", "question_id"), mapped=False)
    check_split(split, files[0])
    samples = samples_of(_joined(asked, answered, files, repeated_ids), clips, task_names=task_names)
    settings = {"scoring": "generate", "max_new_tokens": 64, **settings}
    return Benchmark(f"{id}/{split}", split, samples[:limit], hash_files(files), **settings)


def _joined(asked: Sequence[Row], answered: Sequence[Row], files: Sequence[Path], repeated: str) -> list[Row]:
    """Questions, each with the answer and type of its id."""
    questions = dict(zip(ids_of(asked, repeated, required=True), asked, strict=True))
    answers = dict(zip(ids_of(answered, repeated, required=True), answered, strict=True))
    lacking = [repr(name) for name in questions if name not in answers]
    extra = [repr(name) for name in sorted(answers.keys() - questions.keys())]
    faults = []
    if lacking:
        faults.append(f"{len(lacking)} of {len(asked)} questions have no answer in {files[1].name}: {listed(lacking)}")
    if extra:
        faults.append(f"{len(extra)} answers belong to no question in {files[0].name}: {listed(extra)}")
    if faults:
        raise BenchmarkError(f"{files[0].parent}: {'; '.join(faults)}")
    joined = []
    for name, row in questions.items():
        kind = answers[name].cells.get("type", row.cells.get("question_type"))
        answer = {"question_id": name, "answer": answers[name].text("answer"), "question_type": kind}
        joined.append(Row(row.where, {**row.cells, **answer}))
    return joined
