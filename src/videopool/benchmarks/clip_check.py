"""Whether one clip can be read, and what it is."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from videopool.benchmarks.benchmark import Benchmark, Sample
from videopool.video import Clip, ClipInfo, UnreadableClipError, bounds_to_span, open_clip
from videopool.video.frame_folder import FrameFolderClip

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
                _read_all(clip, task.path, reader)
        status, reason = _bounds(task, info)
    except UnreadableClipError as error:
        status, reason = UNREADABLE, error.reason
    except MemoryError:
        status, reason = UNREADABLE, "its frames do not fit into memory"
    return report(task, status, reason, seconds=time.perf_counter() - started, **facts)


def report(task: ClipTask, status: str, reason: str, **facts: Any) -> ClipReport:
    """A report with what is known from the task."""
    return ClipReport(task.clip, status, reason, samples=task.samples, path=task.path, **facts)


def _bounds(task: ClipTask, info: ClipInfo) -> tuple[str, str]:
    """Status and reason by the stretches that samples ask about."""
    for start, end in task.bounds:
        try:
            bounds_to_span(info, start, end, task.clip)
        except UnreadableClipError as error:
            return BOUNDS, error.reason
    return OK, ""


def _read_all(clip: Clip, path: str, reader: str) -> None:
    """Decode every frame, a few at a time. Raises UnreadableClipError where frames are missing."""
    if isinstance(clip, FrameFolderClip):
        for index in range(clip.info.num_frames):
            clip.frames([index])
        return
    good = _decord_count(path) if reader == "decord" and not path.lower().endswith(".gif") else _pyav_count(path)
    if good < clip.info.num_frames:
        raise UnreadableClipError(path, f"{good} of {clip.info.num_frames} frames can be decoded")


def _pyav_count(path: str) -> int:
    """Frames that decode, leaving out what damage may have reached: all from a bad packet to the next key frame."""
    good: set[int] = set()
    suspect: set[int] = set()
    damaged = False
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # with more, an error is reported for a later packet
            for packet in container.demux(stream):
                damaged = damaged and not packet.is_keyframe
                try:
                    good |= {f.pts for f in packet.decode() if f.pts is not None and not f.is_corrupt}
                except av.error.FFmpegError:
                    damaged = True
                if damaged and packet.pts is not None:
                    suspect.add(packet.pts)
    except av.error.FFmpegError:
        pass  # the rest of the file is lost
    return len(good - suspect)


def _decord_count(path: str) -> int:
    """Frames that decord gives, one after another."""
    import decord

    count = 0
    try:
        video = decord.VideoReader(path, num_threads=1)
        while True:
            video.next()
            count += 1
    except StopIteration:
        pass
    except (decord.DECORDError, RuntimeError, OSError):
        pass  # the rest of the file is lost
    return count
