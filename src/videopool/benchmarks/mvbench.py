"""Benchmarks in MVBench's layout: one JSON file a task, clips in one folder (arXiv 2311.17005)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from videopool.benchmarks.benchmark import Benchmark, Sample, hash_files, inside, read_json
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.rows import FRAMES_PER_SECOND, frame_rate
from videopool.benchmarks.tables import Row


def load_mvbench(
    root: str | Path,
    id: str,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    folders: Mapping[str, str] | None = None,
    id_field: str | None = "question_id",
    bounds: bool = True,
    fps: float = FRAMES_PER_SECOND,
    groups: Mapping[str, Sequence[str]] | None = None,
    headline: str | None = None,
    scoring: str = "likelihood",
    max_new_tokens: int = 32,
    limit: int | None = None,
) -> Benchmark:
    """Read <root>/json/<task>.json (video, question, candidates, answer, start, end) and <root>/video/.

    A clip is a video, a GIF or a folder of frames; start and end bound it, in seconds.

    Args:
        tasks: names of the files to read; all if not given.
        folders: of a task's clips, below <root>/video/. A clip that is not there may lie in <root>/video/ itself.
        id_field: names a sample where a row has it; null: always the task and the place in its file, as the release
            gives ids to some tasks only and uses them more than once.
        bounds: false if clips are cut to start and end already.
        fps: of folders of frames, where a row does not say it.
        limit: at most so many samples of each task, the first ones.

    Raises:
        BenchmarkError: a missing or malformed file, naming file and row.
    """
    folder = Path(root)
    if not (folder / "json").is_dir():
        raise BenchmarkError(f"benchmark.root={root}: there is no folder {folder / 'json'}")
    there = sorted(file for file in (folder / "json").glob("*.json") if not file.name.startswith("."))
    files = [folder / "json" / f"{t}.json" for t in tasks] if tasks else there
    samples: list[Sample] = []
    clips: dict[tuple[str, str], Path] = {}  # many questions may be about one
    for file in files:
        rows = read_json(file)
        if not isinstance(rows, list):
            raise BenchmarkError(f"{file}: a list of questions is expected")
        below = (folders or {}).get(file.stem, "")
        for number, row in enumerate(rows[:limit]):
            where = f"{file}, entry {number}"
            if not isinstance(row, dict):
                raise BenchmarkError(f"{where}: an object is expected")
            own = Row(where, row if bounds else {**row, "start": None, "end": None})
            for field in ("video", "question", "candidates", "answer"):
                if field not in row:
                    raise own.error(f"the field {field!r} is missing")
            name = own.text(id_field) if id_field else ""
            place = (below, own.text("video", required=True))
            if place not in clips:
                clips[place] = _clip(folder / "video", *place, own.where)
            samples.append(_sample(clips[place], below, own, name or f"{file.stem}/{number:05d}", file.stem, fps))
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


def _sample(clip: Path, below: str, row: Row, name: str, task: str, fps: float) -> Sample:
    listed, answer = row.cells["candidates"], row.cells["answer"]
    if not isinstance(listed, list) or not listed:
        raise row.error(f"the field 'candidates' must be a list of texts, got {listed!r}")
    row.text("question", required=True)
    for option in listed:
        row.as_text(option, "candidates")
    # As they stand, white space and all: prompts are held to the reference's, character for character.
    options = tuple(str(option) for option in listed)
    if str(answer) not in options:
        raise row.error(f"the answer {answer!r} is not among the candidates {list(options)}")
    start, end = row.number("start"), row.number("end")
    if start is not None and end is not None and start > end:
        raise row.error(f"the field 'start' ({start:g} s) comes after 'end' ({end:g} s)")
    video = row.text("video")
    clip_id = f"{below}/{video}" if below else video
    return Sample(
        id=name,
        clip=clip,
        clip_id=clip_id,
        question=str(row.cells["question"]),
        options=options,
        answer=str(answer),
        task=task,
        start=start,
        end=end,
        fps=frame_rate(row, fps),
    )


def _clip(videos: Path, below: str, video: str, where: str) -> Path:
    """The clip in its task's folder, or else in the folder of all clips; the former if there is neither."""
    inside(videos, video, where)
    own = inside(videos, f"{below}/{video}" if below else video, where)
    flat = videos / video
    return flat if not os.path.exists(own) and os.path.exists(flat) else own
