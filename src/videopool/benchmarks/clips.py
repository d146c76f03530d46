"""A folder of a user's own clips, with or without a sheet of questions."""

import csv
import hashlib
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, Sample, hash_files, inside
from videopool.benchmarks.errors import BenchmarkError
from videopool.video import VIDEO_SUFFIXES


def load_clips(
    root: str | Path,
    questions: str | Path | None = None,
    scoring: str = "likelihood",
    max_new_tokens: int = 64,
    limit: int | None = None,
    recursive: bool = False,
    id: str = "clips",
    split: str = "own",
) -> Benchmark:
    """Read a folder of videos.

    Args:
        root: the folder; videos in it are found by their suffix.
        questions: a CSV with columns video_name and question, and optionally answer, a0, a1 ... (options),
            question_id, question_type. video_name may leave out the suffix. Without it, each clip is to be
            described.
        limit: at most so many samples, the first ones.
        recursive: look into folders below root too.

    Raises:
        BenchmarkError: no such folder or file, a malformed row (named by its line), no clip.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise BenchmarkError(f"benchmark.root={root}: no such folder")
    if questions is None:
        found = folder.rglob("*") if recursive else folder.glob("*")
        videos = sorted(p for p in found if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        names = [p.relative_to(folder).as_posix() for p in videos]
        samples = [Sample(id=n, clip=p, clip_id=n, question="") for n, p in zip(names, videos, strict=True)]
        annotation_hash = hashlib.sha256("\0".join(names).encode()).hexdigest()
        if not samples:
            raise BenchmarkError(f"benchmark.root={root}: no video found; suffixes: {' '.join(sorted(VIDEO_SUFFIXES))}")
    else:
        sheet = Path(questions)
        if not sheet.is_file():
            raise BenchmarkError(f"annotation file {sheet} does not exist (benchmark.questions)")
        samples = _read_sheet(folder, sheet)
        annotation_hash = hash_files([sheet])
    return Benchmark(
        id=f"{id}/{split}",
        split=split,
        samples=samples[:limit],
        annotation_hash=annotation_hash,
        scoring=scoring,
        max_new_tokens=max_new_tokens,
    )


def _read_sheet(folder: Path, sheet: Path) -> list[Sample]:
    samples: list[Sample] = []
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for name in ("video_name", "question"):
                if name not in (reader.fieldnames or []):
                    raise BenchmarkError(f"{sheet}: the column {name!r} is missing")
            for row in reader:
                samples.append(_row(folder, f"{sheet}, line {reader.line_num}", len(samples), row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchmarkError(f"{sheet}: {error}") from error
    return samples


def _row(folder: Path, where: str, number: int, row: dict[str, str]) -> Sample:
    if None in row or not (row.get("video_name") or "").strip():
        raise BenchmarkError(f"{where}: malformed row (wrong number of fields, or an empty video_name)")
    options: list[str] = []
    while (option := row.get(f"a{len(options)}")) not in (None, ""):
        options.append(str(option))
    answer = (row.get("answer") or "").strip()
    if options and answer not in options:
        # IG-VLM's sheets give the answer's text; a number stands for the option at that place.
        if answer.isdigit() and int(answer) < len(options):
            answer = options[int(answer)]
        elif answer:
            raise BenchmarkError(f"{where}: the answer {answer!r} is not among the options {options}")
    name = row["video_name"].strip()
    return Sample(
        id=(row.get("question_id") or "").strip() or f"{number:06d}",
        clip=_find(folder, name, where),
        clip_id=name,
        question=(row.get("question") or "").strip(),
        options=tuple(options),
        answer=answer,
        task=(row.get("question_type") or "").strip(),
    )


def _find(folder: Path, name: str, where: str) -> Path:
    """The clip of that name, with or without suffix; the bare name if there is none, to fail when read."""
    path = inside(folder, name, where)
    if path.exists():
        return path
    for suffix in sorted(VIDEO_SUFFIXES):
        candidate = path.with_name(path.name + suffix)
        if candidate.exists():
            return candidate
    return path
