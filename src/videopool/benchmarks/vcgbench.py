"""Video-ChatGPT's benchmark of generated text (arXiv 2306.05424): open questions whose answers a judge grades.

Three files, five axes: each axis grades the answers to one file's questions (`AXES`). The consistency file asks the
same thing twice; both answers are graded together, so both samples carry the same `pair`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.rows import ids_of, samples_of
from videopool.benchmarks.tables import Row, read_table, renamed

# What is graded: by the task of the samples whose answers are.
AXES = {
    "correctness_of_information": "generic",
    "detail_orientation": "generic",
    "contextual_understanding": "generic",
    "temporal_understanding": "temporal",
    "consistency": "consistency",
}
PARTS = ("generic", "temporal", "consistency")
JSON_FILES = {part: (f"{part}_qa.json",) for part in PARTS}
SHEETS = {
    "generic": ("Generic_QA.csv",),
    "temporal": ("Temporal_QA.csv",),
    "consistency": ("Consistency_QA1.csv", "Consistency_QA2.csv"),
}


def load_vcgbench(
    root: str | Path,
    annotations: str | Path,
    id: str = "vcgbench",
    split: str = "test",
    parts: Sequence[str] = PARTS,
    recursive: bool = False,
    scoring: str = "generate",
    max_new_tokens: int = 200,
    limit: int | None = None,
) -> Benchmark:
    """Read generic_qa.json, temporal_qa.json (Q, A, video_name) and consistency_qa.json (Q1, Q2, A, video_name).

    Where these are not, IG-VLM's sheets of the same questions: Generic_QA.csv, Temporal_QA.csv, Consistency_QA1.csv
    and Consistency_QA2.csv.

    Args:
        root: the folder of the clips.
        annotations: the folder of the files.
        parts: which of the files to read: generic, temporal, consistency. A sample's task is its part.
        recursive: clips may lie in folders below root.
        limit: at most so many entries of each file, the first ones; a pair is one entry.

    Raises:
        BenchmarkError: no such folder or file, a malformed entry, or halves of pairs that do not fit.
    """
    for part in parts:
        if part not in PARTS:
            raise BenchmarkError(f"benchmark.parts: {part!r} is none of {', '.join(PARTS)}")
    clips, folder = ClipFolder(root, recursive=recursive), Path(annotations)
    rows: list[Row] = []
    files: list[Path] = []
    for part in dict.fromkeys(parts):
        own = _files(folder, part)
        files += own
        entries = [read_table(file, "benchmark.annotations") for file in own]
        rows += _of_json(entries[0], part, limit) if own[0].suffix == ".json" else _of_sheets(entries, part, limit)
    return Benchmark(
        id=f"{id}/{split}",
        split=split,
        samples=[replace(sample, judged=True) for sample in samples_of(rows, clips)],
        annotation_hash=hash_files(files),
        scoring=scoring,
        max_new_tokens=max_new_tokens,
        axes={axis: part for axis, part in AXES.items() if part in parts},
    )


def _files(folder: Path, part: str) -> list[Path]:
    """The files of one part that are there."""
    for names in (JSON_FILES[part], SHEETS[part]):
        if (folder / names[0]).is_file():
            return [folder / name for name in names]
    expected = f"{JSON_FILES[part][0]} nor {' and '.join(SHEETS[part])}"
    raise BenchmarkError(f"benchmark.annotations={folder}: there is neither {expected}")


def _of_json(entries: Sequence[Row], part: str, limit: int | None) -> list[Row]:
    asked = ("Q1", "Q2") if part == "consistency" else ("Q",)
    return [
        row
        for number, entry in enumerate(renamed(entries, {}, (*asked, "A", "video_name"), mapped=False)[:limit])
        for row in _entry(part, number, [(entry, entry.text(name, required=True)) for name in asked], entry.text("A"))
    ]


def _of_sheets(entries: Sequence[Sequence[Row]], part: str, limit: int | None) -> list[Row]:
    needed = ("video_name", "question", "answer", "question_id")
    first, *others = [renamed(rows, {}, needed, mapped=False) for rows in entries]
    halves = [[(row, row.text("question", required=True))] for row in first]
    for rows in others:
        # The halves of a pair stand in two sheets and belong together by their id.
        ids, second = ids_of(first, "number"), dict(zip(ids_of(rows, "number"), rows, strict=True))
        if set(ids) != second.keys():
            odd = sorted(set(ids) ^ second.keys())
            places = f"{first[0].where.rpartition(',')[0]} and {rows[0].where.rpartition(',')[0]}"
            raise BenchmarkError(f"{places}: {len(odd)} questions stand in one of them alone: {', '.join(odd[:5])}")
        for one, half in zip(ids, halves, strict=True):
            row, (other, _) = second[one], half[0]
            if row.text("video_name") != other.text("video_name"):
                raise row.error(f"the field 'video_name' differs from that of the same question in {other.where}")
            half.append((row, row.text("question", required=True)))
    return [
        row
        for number, half in enumerate(halves[:limit])
        for row in _entry(part, number, half, half[0][0].text("answer"))
    ]


def _entry(part: str, number: int, asked: Sequence[tuple[Row, str]], answer: str) -> list[Row]:
    """Rows of one entry: a question, or a pair of them with one answer."""
    name = f"{part}/{number:05d}"
    rows = []
    for place, (row, question) in enumerate(asked, 1):
        if not answer:
            raise row.error("malformed row: there is no answer to compare with")
        paired = {"question_id": f"{name}/{place}", "pair": name} if len(asked) > 1 else {"question_id": name}
        cells = {"video_name": row.cells["video_name"], "question": question, "answer": answer, "question_type": part}
        rows.append(Row(row.where, {**cells, **paired}))
    return rows
