"""Benchmarks in MVBench's layout: one JSON file per task, clips in one folder (arXiv 2311.17005)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, Sample, hash_files, inside
from videopool.benchmarks.columns import Row
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.rows import FRAMES_PER_SECOND, times_of
from videopool.benchmarks.tables import json_rows, text_of


def load_mvbench(
    root: str | Path,
    id: str,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    folders: Mapping[str, str] | None = None,
    id_field: str | None = "question_id",
    bounds: bool = True,
    fps: float = FRAMES_PER_SECOND,
    limit: int | None = None,
    **settings: Any,
) -> Benchmark:
    """Read <root>/json/<task>.json (video, question, candidates, answer, start, end) and <root>/video/.

    A clip is a video, a GIF or a folder of frames; start and end bound it, in seconds.

    conf/benchmark/mvbench.yaml explains the arguments; `settings` are Benchmark's. The field `id_field` names a sample;
    in rows without it, task and place do. Raises BenchmarkError for a missing or malformed file, naming file and row.
    """
    folder = Path(root) / "json"
    if not folder.is_dir():
        raise BenchmarkError(f"benchmark.root={root}: there is no folder {folder}")
    there = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
    files = [folder / f"{task}.json" for task in tasks] if tasks else there
    samples: list[Sample] = []
    clips: dict[tuple[str, str], Path] = {}  # many questions may share one
    for file in files:
        below = (folders or {}).get(file.stem, "")
        for number, row in enumerate(json_rows(file, text_of(file, "benchmark.tasks"))[:limit]):
            own = row if bounds else Row(row.where, {**row.cells, "start": None, "end": None})
            name = (own.text(id_field) if id_field else "") or f"{file.stem}/{number:05d}"
            place = (below, own.text("video", required=True))
            if place not in clips:
                clips[place] = _clip(Path(root) / "video", *place, own.where)
            samples.append(_sample(clips[place], "/".join(filter(None, place)), own, name, file.stem, fps))
    return Benchmark(f"{id}/{split}", split, samples, hash_files(files), **settings)


def _sample(clip: Path, clip_id: str, row: Row, name: str, task: str, fps: float) -> Sample:
    row.text("question", required=True)
    candidates, answer = row.cells.get("candidates"), row.cells.get("answer")
    if not isinstance(candidates, list) or not candidates:
        raise row.error(f"the field 'candidates' must be a list of texts, got {candidates!r}")
    for option in candidates:
        row.as_text(option, "candidates")
    # Unchanged, with their white space: prompts equal the reference's, character for character.
    options = tuple(map(str, candidates))
    if str(answer) not in options:
        raise row.error(f"the answer {answer!r} is not among the candidates {list(options)}")
    return Sample(
        id=name, clip=clip, clip_id=clip_id, question=str(row.cells["question"]), options=options, answer=str(answer),
        task=task, **times_of(row, fps),
    )  # fmt: skip


def _clip(videos: Path, below: str, video: str, where: str) -> Path:
    """The clip in its task's folder or else in the folder of all clips; the former path if it is in neither."""
    flat = inside(videos, video, where)
    own = inside(videos, f"{below}/{video}", where) if below else flat
    return flat if not os.path.exists(own) and os.path.exists(flat) else own
