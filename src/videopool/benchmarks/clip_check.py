"""Whether one clip can be read, its facts, and the journal of an unfinished check."""

import json
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, Sample
from videopool.files import append, json_lines, read_json_lines
from videopool.video import UnreadableClipError, bounds_to_span, open_clip, printable

OK, MISSING, UNREADABLE, BOUNDS = "ok", "missing", "unreadable", "bad_bounds"


@dataclass(frozen=True)
class ClipTask:
    """A clip to check."""

    clip: str  # its name within the benchmark
    path: str  # file or folder
    fps: float  # of a folder of frames
    bounds: tuple[tuple[float | None, float | None], ...]  # start and end, in seconds, of each stretch asked about
    samples: int  # number of samples on it


@dataclass(frozen=True)
class ClipReport:
    """A line of check_videos.csv; docs/benchmarks.md describes its columns."""

    clip: str
    status: str  # OK, MISSING, UNREADABLE, or BOUNDS for a stretch outside the clip
    reason: str = ""  # one line
    frames: int | None = None
    fps: float | None = None
    duration: float | None = None  # seconds
    size: str = ""  # width x height
    seconds: float = 0.0  # spent on reading it
    samples: int = 0
    path: str = ""


def clip_tasks(benchmark: Benchmark) -> list[ClipTask]:
    """Each file or folder of a benchmark once, in the order of its first sample."""
    by_path: dict[Path, list[Sample]] = defaultdict(list)
    for sample in benchmark.samples:
        by_path[sample.clip].append(sample)
    tasks = []
    for path, samples in by_path.items():
        bounds = dict.fromkeys((s.start, s.end) for s in samples if (s.start, s.end) != (None, None))
        tasks.append(ClipTask(samples[0].clip_id, str(path), samples[0].fps, tuple(bounds), len(samples)))
    return tasks


def check_clip(task: ClipTask, reader: str, full: bool) -> ClipReport:
    """Read one clip with one of video.READERS: all frames, or else the first, the middle and the last."""
    started = time.perf_counter()
    if not os.path.exists(task.path):
        return report(task, MISSING, "no such file or folder")
    facts: dict[str, Any] = {}
    status, reason = UNREADABLE, ""
    try:
        with open_clip(task.path, reader, task.fps) as clip:
            info = clip.info
            last = info.num_frames - 1
            length = last / info.fps if info.timestamps is None else float(info.timestamps[-1])  # to the last frame
            facts = {"frames": info.num_frames, "fps": info.fps, "duration": length + 1 / info.fps}
            shape = clip.frames(sorted({0, last // 2, last})).shape
            facts["size"] = f"{shape[2]}x{shape[1]}"
            if full and (good := clip.readable()) < info.num_frames:
                raise UnreadableClipError(task.path, f"{good} of {info.num_frames} frames can be decoded")
        status = BOUNDS
        for start, end in task.bounds:
            bounds_to_span(info, start, end, task.clip)
        status = OK
    except UnreadableClipError as error:
        reason = error.reason
    except MemoryError:
        reason = "its frames do not fit into memory"
    return report(task, status, reason, seconds=time.perf_counter() - started, **facts)


def report(task: ClipTask, status: str, reason: str, **facts: Any) -> ClipReport:
    """A report with the facts of the task."""
    return ClipReport(task.clip, status, reason, samples=task.samples, path=printable(task.path), **facts)


class Journal:
    """Reports so far, on disk, so that a stopped check can go on.

    A report counts while the file's size and modification time, and the check's settings (`how`), stay the same.
    """

    def __init__(self, path: Path, how: dict[str, object]) -> None:
        self.path, self.how = path, how
        self._kept: dict[str, ClipReport] = {}
        for entry in read_json_lines(path):
            try:
                self._kept[entry["key"]] = ClipReport(**entry["report"])
            except (KeyError, TypeError):
                continue  # of another release

    def get(self, task: ClipTask) -> ClipReport | None:
        """An earlier report of the clip as it is now."""
        return self._kept.get(self._key(task))

    def add(self, task: ClipTask, result: ClipReport) -> None:
        """Append a report."""
        append(self.path, json_lines([{"key": self._key(task), "report": asdict(result)}]))

    def remove(self) -> None:
        """Delete the journal of a complete check."""
        self.path.unlink(missing_ok=True)

    def _key(self, task: ClipTask) -> str:
        try:
            stat = os.stat(task.path)
            state: list[int] = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            state = []
        return json.dumps([asdict(task), self.how, state])
