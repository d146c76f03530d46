"""Video-ChatGPT's benchmark of generated text (arXiv 2306.05424): open questions whose answers a judge grades.

Three files, five axes: each axis grades the answers to one file's questions (`AXES`). The consistency file asks each
question in two ways; a judge grades both answers together, so both samples share a `pair`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.columns import Row, renamed
from videopool.benchmarks.errors import BenchmarkError, check_choice, listed
from videopool.benchmarks.rows import ids_of, samples_of
from videopool.benchmarks.tables import read_table

# By axis, the task whose answers it grades.
AXES = {
    "correctness_of_information": "generic",
    "detail_orientation": "generic",
    "contextual_understanding": "generic",
    "temporal_understanding": "temporal",
    "consistency": "consistency",
}
PARTS = {
    "generic": ("Generic_QA.csv",),
    "temporal": ("Temporal_QA.csv",),
    "consistency": ("Consistency_QA1.csv", "Consistency_QA2.csv"),
}  # with IG-VLM's sheets

Entry = list[tuple[Row, str]]  # one question, or a pair of them, each with its row


def load_vcgbench(
    root: str | Path,
    annotations: str | Path,
    id: str = "vcgbench",
    split: str = "test",
    parts: Sequence[str] = tuple(PARTS),
    recursive: bool = False,
    limit: int | None = None,
    **settings: Any,
) -> Benchmark:
    """Read generic_qa.json, temporal_qa.json (Q, A, video_name) and consistency_qa.json (Q1, Q2, A, video_name).

    Without them, read IG-VLM's sheets of the same questions. conf/benchmark/vcgbench.yaml explains the arguments;
    `settings` are Benchmark's. A sample's task is its part. Raises BenchmarkError for a missing folder or file, a
    malformed entry, or halves of pairs that do not fit.
    """
    clips, folder = ClipFolder(root, recursive=recursive), Path(annotations)
    rows: list[Row] = []
    files: list[Path] = []
    for part in dict.fromkeys(parts):
        check_choice("benchmark.parts", part, PARTS)
        own, sheets = [folder / f"{part}_qa.json"], [folder / name for name in PARTS[part]]
        if own[0].is_file():
            entries = _of_json(own[0], ("Q1", "Q2") if part == "consistency" else ("Q",))
        elif sheets[0].is_file():
            own, entries = sheets, _of_sheets(sheets)
        else:
            there = " and ".join(PARTS[part])
            raise BenchmarkError(f"benchmark.annotations={folder}: there is neither {own[0].name} nor {there}")
        files += own
        for number, entry in enumerate(entries[:limit]):
            rows += _rows(f"{part}/{number:05d}", part, entry)
    settings = {"scoring": "generate", "max_new_tokens": 200, **settings}
    samples = [replace(sample, judged=True) for sample in samples_of(rows, clips)]
    axes = {axis: part for axis, part in AXES.items() if part in parts}
    return Benchmark(f"{id}/{split}", split, samples, hash_files(files), axes=axes, **settings)


def _of_json(file: Path, asked: Sequence[str]) -> list[Entry]:
    rows = read_table(file, "benchmark.annotations")
    rows = renamed(rows, {"answer": "A"}, (*asked, "answer", "video_name"), mapped=False)
    return [[(row, row.text(name, required=True)) for name in asked] for row in rows]


def _of_sheets(files: Sequence[Path]) -> list[Entry]:
    """Entries of one sheet, or of two whose rows belong together by their id."""
    needed = ("video_name", "question", "answer", "question_id")
    sheets = []
    for file in files:
        rows = renamed(read_table(file, "benchmark.annotations"), {}, needed, mapped=False)
        sheets.append(dict(zip(ids_of(rows, "number"), rows, strict=True)))
    if odd := sorted(sheets[0].keys() ^ sheets[-1].keys()):
        places = " and ".join(map(str, files))
        raise BenchmarkError(f"{places}: {len(odd)} questions stand in one of them alone: {listed(odd)}")
    entries = []
    for name, first in sheets[0].items():
        rows = [sheet[name] for sheet in sheets]
        if rows[-1].text("video_name") != first.text("video_name"):
            raise rows[-1].error(f"the field 'video_name' differs from that of the same question in {first.where}")
        entries.append([(row, row.text("question", required=True)) for row in rows])
    return entries


def _rows(name: str, part: str, entry: Entry) -> list[Row]:
    """Rows of one entry: a question, or a pair of them with one answer."""
    rows, answer = [], entry[0][0].text("answer")
    for place, (row, question) in enumerate(entry, 1):
        if not answer:
            raise row.error("malformed row: there is no answer to compare with")
        paired = {"question_id": f"{name}/{place}", "pair": name} if len(entry) > 1 else {"question_id": name}
        cells = {"video_name": row.cells["video_name"], "question": question, "answer": answer, "question_type": part}
        rows.append(Row(row.where, {**cells, **paired}))
    return rows
