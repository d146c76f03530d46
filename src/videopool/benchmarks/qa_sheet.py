"""Sheets of questions, one a row: IG-VLM's (arXiv 2403.18406), others of that kind, and a user's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.rows import FRAMES_PER_SECOND, samples_of
from videopool.benchmarks.tables import Columns, read_table, renamed

NEEDED = ("video_name", "question")


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
    scoring: str = "likelihood",
    max_new_tokens: int = 32,
    limit: int | None = None,
) -> Benchmark:
    """Read a sheet: CSV, TSV, JSON or JSON lines.

    Args:
        root: the folder of the clips.
        annotations: the sheet: video_name, question, and optionally answer, a0, a1 ... (or a list `options`),
            question_id, question_type, start, end, fps.
        columns: the sheet's own names for these, where they differ.
        answers, repeated_ids, task_names, bounds_in_name, fps: see samples_of.
        prefixes, recursive: see ClipFolder.
        groups, headline: see Benchmark.
        limit: at most so many questions, the first ones.

    Raises:
        BenchmarkError: no such folder or file, or a row that cannot be used, naming it.
    """
    clips, sheet = ClipFolder(root, prefixes, recursive), Path(annotations)
    rows = renamed(read_table(sheet, "benchmark.annotations"), columns or {}, NEEDED)
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
