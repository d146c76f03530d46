"""Whether one clip can be read, and what it is."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, Sample
from videopool.video import ClipInfo, UnreadableClipError, bounds_to_span, open_clip, printable

OK, MISSING, UNREADABLE, BOUNDS = "ok", "missing", "unreadable", "bad_bounds"


@dataclass(frozen=True)
class ClipTask:
    """A clip to check.

    Attributes:
        clip: its name within the benchmark.
        path: file or folder.
        fps: of a folder of frames.
        bounds: the stretches that samples ask about, in seconds.
        samples: how many samples ask about it.
    """

    clip: str
    path: str
    fps: float
    bounds: tuple[tuple[float | None, float | None], ...]
    samples: int


@dataclass(frozen=True)
class ClipReport:
    """What became of a clip: a line of check_videos.csv.

    Attributes:
        clip: its name within the benchmark.
        status: "ok", "missing", "unreadable", or "bad_bounds" for stretches that lie outside it.
        reason: one line, "" if it is ok.
        frames: how many it has.
        fps: frames per second.
        duration: in seconds.
        size: width x height of its frames.
        seconds: spent on reading it.
        samples: how many samples ask about it.
        path: file or folder.
    """

    clip: str
    status: str
    reason: str = ""
    frames: int | None = None
    fps: float | None = None
    duration: float | None = None
    size: str = ""
    seconds: float = 0.0
    samples: int = 0
    path: str = ""


def clip_tasks(benchmark: Benchmark) -> list[ClipTask]:
    """Each file or folder of a benchmark once, in the order of its first sample."""
    found: dict[Path, list[Sample]] = {}
    for sample in benchmark.samples:
        found.setdefault(sample.clip, []).append(sample)
    return [
        ClipTask(
            samples[0].clip_id,
            str(path),
            samples[0].fps,
            tuple(dict.fromkeys((s.start, s.end) for s in samples if (s.start, s.end) != (None, None))),
            len(samples),
        )
        for path, samples in found.items()
    ]


def check_clip(task: ClipTask, reader: str, full: bool) -> ClipReport:
    """Read one clip.

    Args:
        reader: of videos, one of video.READERS.
        full: all frames, not just the first, the middle and the last.
    """
    started = time.perf_counter()
    if not os.path.exists(task.path):
        return report(task, MISSING, "no such file or folder")
    facts: dict[str, Any] = {}
    try:
        with open_clip(task.path, reader, task.fps) as clip:
            info = clip.info
            last = info.num_frames - 1
            length = last / info.fps if info.timestamps is None else float(info.timestamps[-1])  # to the last frame
            facts = {"frames": info.num_frames, "fps": info.fps, "duration": length + 1 / info.fps}
            shape = clip.frames(sorted({0, last // 2, last})).shape
            facts["size"] = f"{shape[2]}x{shape[1]}"
            if full:
                good = clip.readable()
                if good < info.num_frames:
                    raise UnreadableClipError(task.path, f"{good} of {info.num_frames} frames can be decoded")
        status, reason = _bounds(task, info)
    except UnreadableClipError as error:
        status, reason = UNREADABLE, error.reason
    except MemoryError:
        status, reason = UNREADABLE, "its frames do not fit into memory"
    return report(task, status, reason, seconds=time.perf_counter() - started, **facts)


def report(task: ClipTask, status: str, reason: str, **facts: Any) -> ClipReport:
    """A report with what is known from the task."""
    return ClipReport(task.clip, status, reason, samples=task.samples, path=printable(task.path), **facts)


def _bounds(task: ClipTask, info: ClipInfo) -> tuple[str, str]:
    """Status and reason by the stretches that samples ask about."""
    for start, end in task.bounds:
        try:
            bounds_to_span(info, start, end, task.clip)
        except UnreadableClipError as error:
            return BOUNDS, error.reason
    return OK, ""
