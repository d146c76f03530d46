"""Benchmarks in MVBench's layout: one JSON file a task, clips in one folder (arXiv 2311.17005)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, Sample, hash_files, inside, read_json
from videopool.benchmarks.errors import BenchmarkError


def load_mvbench(
    root: str | Path,
    id: str,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    headline: str | None = None,
    scoring: str = "likelihood",
    max_new_tokens: int = 32,
    limit: int | None = None,
) -> Benchmark:
    """Read <root>/json/<task>.json (video, question, candidates, answer, start, end) and <root>/video/.

    Args:
        tasks: names of the files to read; all if not given.
        limit: at most so many samples of each task, the first ones.

    Raises:
        BenchmarkError: a missing or malformed file, naming file and row.
    """
    folder = Path(root)
    if not (folder / "json").is_dir():
        raise BenchmarkError(f"benchmark.root={root}: there is no folder {folder / 'json'}")
    files = [folder / "json" / f"{t}.json" for t in tasks] if tasks else sorted((folder / "json").glob("*.json"))
    samples: list[Sample] = []
    for file in files:
        rows = read_json(file)
        if not isinstance(rows, list):
            raise BenchmarkError(f"{file}: a list of questions is expected")
        for number, row in enumerate(rows[:limit]):
            samples.append(_sample(folder, file, number, row))
    return Benchmark(
        id=f"{id}/{split}",
        split=split,
        samples=samples,
        annotation_hash=hash_files(files),
        groups={name: list(members) for name, members in (groups or {}).items()},
        headline=headline,
        scoring=scoring,
        max_new_tokens=max_new_tokens,
    )


def _sample(folder: Path, file: Path, number: int, row: object) -> Sample:
    where = f"{file}, entry {number}"
    if not isinstance(row, dict):
        raise BenchmarkError(f"{where}: an object is expected")
    for name in ("video", "question", "candidates", "answer"):
        if name not in row:
            raise BenchmarkError(f"{where}: the field {name!r} is missing")
    options = tuple(str(option) for option in row["candidates"])
    if str(row["answer"]) not in options:
        raise BenchmarkError(f"{where}: the answer {row['answer']!r} is not among the candidates {list(options)}")
    return Sample(
        id=str(row.get("question_id", f"{file.stem}/{number:05d}")),
        clip=inside(folder / "video", str(row["video"]), where),
        clip_id=str(row["video"]),
        question=str(row["question"]),
        options=options,
        answer=str(row["answer"]),
        task=file.stem,
        start=None if row.get("start") is None else float(row["start"]),
        end=None if row.get("end") is None else float(row["end"]),
        fps=float(row.get("fps", 3.0)),
    )
