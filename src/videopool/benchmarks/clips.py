"""A folder of a user's own clips, with or without a sheet of questions."""

import hashlib
from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, Sample
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import BenchmarkError, listed
from videopool.benchmarks.qa_sheet import load_qa_sheet
from videopool.benchmarks.tables import Columns
from videopool.notes import note
from videopool.video import VIDEO_SUFFIXES, animation, is_hidden, printable


def load_clips(
    root: str | Path,
    questions: str | Path | None = None,
    max_new_tokens: int = 64,
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
    settings["max_new_tokens"] = max_new_tokens
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
