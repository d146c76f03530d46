"""A folder of a user's own clips, with or without a sheet of questions."""

import hashlib
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, Sample, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.qa_sheet import read_sheet
from videopool.benchmarks.rows import samples_of
from videopool.benchmarks.splits import check_split
from videopool.benchmarks.tables import Columns
from videopool.notes import note
from videopool.video import VIDEO_SUFFIXES, animation, is_hidden, printable

LISTED = 5


def load_clips(
    root: str | Path,
    questions: str | Path | None = None,
    scoring: str = "likelihood",
    max_new_tokens: int = 64,
    limit: int | None = None,
    recursive: bool = False,
    id: str = "clips",
    split: str = "own",
    columns: Columns | None = None,
    answers: str = "auto",
) -> Benchmark:
    """Read a folder of videos.

    Args:
        root: the folder; videos in it are found by their suffix, and animated WebP and PNG images. Other files are
            told in one line on stderr.
        questions: a sheet, as load_qa_sheet reads it. Without it, each clip is to be described.
        columns, answers: of the sheet, see load_qa_sheet.
        limit: at most so many samples, the first ones.
        recursive: look into folders below root too.

    Raises:
        BenchmarkError: no such folder or file, a malformed row (named by its line), no clip.
    """
    if questions is not None:
        sheet = Path(questions)
        clips = ClipFolder(root, recursive=recursive)
        rows = read_sheet(sheet, "benchmark.questions", columns)
        check_split(split, sheet, len(rows), {})
        return Benchmark(
            id=f"{id}/{split}",
            split=split,
            samples=samples_of(rows, clips, answers)[:limit],
            annotation_hash=hash_files([sheet]),
            scoring=scoring,
            max_new_tokens=max_new_tokens,
        )
    folder = Path(root)
    if not folder.is_dir():
        raise BenchmarkError(f"benchmark.root={root}: no such folder")
    found = sorted(p for p in (folder.rglob("*") if recursive else folder.glob("*")) if p.is_file())
    found = [p for p in found if not any(map(is_hidden, p.relative_to(folder).parts))]
    videos = [p for p in found if p.suffix.lower() in VIDEO_SUFFIXES or animation(p)]
    if not videos:
        raise BenchmarkError(f"benchmark.root={root}: no video found; suffixes: {' '.join(sorted(VIDEO_SUFFIXES))}")
    names = [printable(p.relative_to(folder).as_posix()) for p in videos]
    if others := [printable(p.relative_to(folder).as_posix()) for p in found if p not in set(videos)]:
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        listed = ", ".join(others[:LISTED])
        note(f"benchmark.root={root}: {len(others)} of {len(found)} files are no videos: {listed}{more}", once=True)
    samples = [Sample(id=n, clip=p, clip_id=n, question="") for n, p in zip(names, videos, strict=True)]
    return Benchmark(
        id=f"{id}/{split}",
        split=split,
        samples=samples[:limit],
        annotation_hash=hashlib.sha256("\0".join(names).encode()).hexdigest(),
        scoring=scoring,
        max_new_tokens=max_new_tokens,
    )
