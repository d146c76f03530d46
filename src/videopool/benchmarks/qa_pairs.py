"""Open questions and their answers in two JSON files, as ActivityNet-QA is released and Video-LLaVA keeps others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.rows import ids_of, samples_of
from videopool.benchmarks.splits import check_split
from videopool.benchmarks.tables import Columns, Row, read_table, renamed

LISTED = 5  # ids in an error message


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

    Questions and answers belong together by their id, whatever their order.

    Args:
        root: the folder of the clips.
        annotations: the folder of the two files.
        questions, answers: their names.
        columns: the question file's own names for its fields, where they differ.
        repeated_ids: "refuse" an id that stands twice in a file, or "number": the second question of an id goes
            with its second answer.
        task_names: words for the types.
        prefixes, recursive: see ClipFolder.
        limit: at most so many questions, the first ones.

    Raises:
        BenchmarkError: no such folder or file, a malformed entry, a question without an answer, or the reverse.
    """
    clips, folder = ClipFolder(root, prefixes, recursive), Path(annotations)
    files = [folder / questions, folder / answers]
    asked, told = (read_table(file, "benchmark.annotations") for file in files)
    asked = renamed(asked, columns or {}, ("video_name", "question", "question_id"))
    told = renamed(told, {}, ("answer", "question_id"), mapped=False)
    check_split(split, files[0], len(asked), {})
    samples = samples_of(_joined(asked, told, files, repeated_ids), clips, task_names=task_names)
    return Benchmark(
        id=f"{id}/{split}",
        split=split,
        samples=samples[:limit],
        annotation_hash=hash_files(files),
        scoring=scoring,
        max_new_tokens=max_new_tokens,
    )


def _joined(asked: Sequence[Row], told: Sequence[Row], files: Sequence[Path], repeated: str) -> list[Row]:
    """Questions with the answer and type of their id."""
    for row in (*asked, *told):
        row.text("question_id", required=True)
    ids = ids_of(asked, repeated)
    by_id = dict(zip(ids_of(told, repeated), told, strict=True))
    lacking = [one for one in ids if one not in by_id]
    extra = sorted(by_id.keys() - set(ids))
    faults = []
    if lacking:
        faults.append(f"{len(lacking)} of {len(ids)} questions have no answer in {files[1].name}: {_some(lacking)}")
    if extra:
        faults.append(f"{len(extra)} answers belong to no question in {files[0].name}: {_some(extra)}")
    if faults:
        raise BenchmarkError(f"{files[0].parent}: {'; '.join(faults)}")
    joined = []
    for one, row in zip(ids, asked, strict=True):
        answer = by_id[one]
        kind = answer.cells.get("type", row.cells.get("question_type"))
        more = {"question_id": one, "answer": answer.text("answer"), "question_type": kind}
        joined.append(Row(row.where, {**row.cells, **more}))
    return joined


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return ", ".join(map(repr, ids[:LISTED])) + more
