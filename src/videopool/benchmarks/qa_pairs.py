"""Open questions and their answers in two JSON files, the layout of ActivityNet-QA and of Video-LLaVA's others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import BenchmarkError, listed
from videopool.benchmarks.rows import ids_of, samples_of
from videopool.benchmarks.splits import check_split
from videopool.benchmarks.tables import Columns, Row, read_table, renamed


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
    scoring: str = "generate",
    max_new_tokens: int = 64,
    limit: int | None = None,
) -> Benchmark:
    """Read <annotations>/test_q.json (video_name, question, question_id) and test_a.json (answer, question_id, type).

    The id joins questions and answers, whatever their order. conf/benchmark/qa_pairs.yaml explains the arguments.

    Raises BenchmarkError for a missing folder or file, a malformed entry, or a question without answer or the reverse.
    """
    clips, folder = ClipFolder(root, prefixes, recursive), Path(annotations)
    files = [folder / questions, folder / answers]
    asked, answered = (read_table(file, "benchmark.annotations") for file in files)
    asked = renamed(asked, columns or {}, ("video_name", "question", "question_id"))
    answered = renamed(answered, {}, ("answer", "question_id"), mapped=False)
    check_split(split, files[0])
    samples = samples_of(_joined(asked, answered, files, repeated_ids), clips, task_names=task_names)
    return Benchmark(
        f"{id}/{split}", split, samples[:limit], hash_files(files), scoring=scoring, max_new_tokens=max_new_tokens
    )


def _joined(asked: Sequence[Row], answered: Sequence[Row], files: Sequence[Path], repeated: str) -> list[Row]:
    """Questions, each with the answer and type of its id."""
    for row in (*asked, *answered):
        row.text("question_id", required=True)
    questions = dict(zip(ids_of(asked, repeated), asked, strict=True))
    answers = dict(zip(ids_of(answered, repeated), answered, strict=True))
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
