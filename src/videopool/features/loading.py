"""Read clips ahead of the model, in loader processes, and only the views that the store lacks."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from videopool.features.source import ClipKey, FeatureSource, View, frames_of, software
from videopool.features.store import ClipState, FeatureStore
from videopool.video import (
    IMAGE_SUFFIXES,
    Clip,
    ClipInfo,
    Sampler,
    UnreadableClipError,
    Unresizable,
    is_hidden,
    open_clip,
    printable,
    to_pixels,
)

TOGETHER = "together"  # begins a view of several frames
CLOCK_GRAIN = 20_000_000  # nanoseconds; two changes of a file this close together may get the same time


@dataclass(frozen=True)
class ClipJob:
    """A stretch of a clip and its samples."""

    clip: Path  # file or folder
    name: str  # within its benchmark; seeds random samplers
    samples: tuple[Any, ...]  # questions or lessons; not used here
    start: float | None = None  # bound in seconds
    end: float | None = None
    fps: float = 3.0  # of a folder of frames


@dataclass
class LoadedClip:
    """A clip as a loader process read it."""

    job: ClipJob
    state: ClipState | None = None
    digest: str = ""  # content hash
    info: ClipInfo | None = None
    indices: list[int] = field(default_factory=list)  # the sampler's frames, in order
    views: list[View] = field(default_factory=list)  # the tower's inputs, in order: frames, or an image tiled of them
    pixels: Tensor | None = None  # [M, 3, S, S] of the views in `encoded`; None if none were needed
    encoded: list[View] = field(default_factory=list)
    error: str = ""  # why the clip cannot be used, "" if it can
    beside: dict[str, Tensor] = field(default_factory=dict)  # [V, rows, width] by name, once the tower has read it
    seconds: dict[str, float] = field(default_factory=dict)  # by kind of work

    def pin_memory(self) -> "LoadedClip":
        """Itself, its pixels where an accelerator copies them from while it computes; a DataLoader calls it."""
        if self.pixels is not None:
            self.pixels = self.pixels.pin_memory()
        return self

    @property
    def times(self) -> list[float]:
        """Seconds of the chosen frames from the clip's first frame."""
        if self.info is None:
            return []
        stamps, fps = self.info.timestamps, self.info.fps
        return [index / fps if stamps is None else float(stamps[index]) for index in self.indices]

    @property
    def moments(self) -> int:
        """The clip's views without a thumbnail are moments of its grid; frames that are tiled into an image are one."""
        return sum(isinstance(view, int) or view[0] == TOGETHER for view in self.views) or 1

    @property
    def still(self) -> bool:
        """Whether the clip is an image that does not move, shown once."""
        alone = self.info is not None and self.info.num_frames == 1 and self.moments == 1
        return alone and self.job.clip.suffix.lower() in IMAGE_SUFFIXES

    @property
    def duration(self) -> float:
        """Seconds of the whole clip."""
        return self.info.num_frames / self.info.fps if self.info is not None else 0.0


def file_state(path: Path, opened: str) -> ClipState | None:
    """State of a file, or of a folder by its files; None if there is nothing.

    Waits if a file has just changed: a second change within the clock's grain would leave the state as it is.
    """
    try:
        stats = [(p.name, p.stat()) for p in _files(path)]
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    times = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    age = time.time_ns() - max((time for _, _, time in times), default=0)
    if 0 <= age < CLOCK_GRAIN:
        time.sleep((CLOCK_GRAIN - age) / 1e9)
        return file_state(path, opened)
    modified = times[0][2] if not path.is_dir() else int(hashlib.sha256(repr(times).encode()).hexdigest()[:15], 16)
    return ClipState(printable(os.path.abspath(path)), sum(size for _, size, _ in times), modified, opened)


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            digest.update(f"{printable(file.name)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.is_file() and not is_hidden(p.name))


def in_order(views: Iterable[Any]) -> list[Any]:
    """Views of a clip, each once: frames by index, then tiled images."""
    return sorted(set(views), key=lambda view: (isinstance(view, tuple), view))


@dataclass(frozen=True)
class Composed:
    """An image made of some frames of a clip."""

    layout: str  # names the map `make` in the view's key
    make: Callable[[np.ndarray], np.ndarray]  # uint8 frames [T, h, w, 3] to [1, h', w', 3]
    shown: Callable[[int], list[int]] | None = None  # number of frames to the places of those shown; None: all

    def view(self, indices: Sequence[int]) -> View:
        """The image of a clip's chosen frames."""
        places = range(len(indices)) if self.shown is None else self.shown(len(indices))
        return (self.layout, *(indices[place] for place in places))


@dataclass(frozen=True)
class ReadPlan:
    """How all clips of a point are read."""

    sampler: Sampler
    reader: str  # of videos
    image_processor: Any  # makes pixels of views
    tile: Composed | None = None  # an image in place of the frames; None: each frame is a view
    thumbnail: Composed | None = None  # an image as one more view, after them
    together: int = 1  # frames that are one view, their pixels [together * 3, S, S]; the last one fills the last view

    def state(self, job: ClipJob) -> ClipState | None:
        """State of a clip on disk, None if there is none."""
        return file_state(job.clip, f"{software(self.reader)}; {self.reader}; {job.fps} frames per second in folders")

    def choose(self, job: ClipJob, info: ClipInfo) -> tuple[list[int], list[View]]:
        """Frames of a clip of this length and timing, and the tower's views of them; equal views look equal.

        Raises UnreadableClipError if the job's bounds lie outside the clip.
        """
        indices = self.sampler.indices(info, job.start, job.end, job.name)
        views: list[View] = self._single(indices) if self.tile is None else [self.tile.view(indices)]
        return indices, views if self.thumbnail is None else [*views, self.thumbnail.view(indices)]

    def _single(self, indices: Sequence[int]) -> list[View]:
        """Views of single frames, or of several together; with the number of frames if their size depends on it."""
        if self.together == 1:
            return list(indices)
        filled = [*indices, *[indices[-1]] * (-len(indices) % self.together)]
        name = (TOGETHER, str(len(indices))) if getattr(self.image_processor, "whole", False) else (TOGETHER,)
        return [(*name, *filled[first : first + self.together]) for first in range(0, len(filled), self.together)]

    def pixels(self, clip: Clip, views: Sequence[Any], seconds: dict[str, float]) -> Tensor:
        """Pixels [M, 3, S, S] of views of an open clip, each once and in_order. Adds the time spent to seconds."""
        started = time.perf_counter()
        unique = sorted(set().union(*map(frames_of, views)))
        read = clip.frames(unique)
        place = {index: number for number, index in enumerate(unique)}
        # Frames first, then images of several, which differ in size: the order of in_order().
        single = [place[view] for view in views if not isinstance(view, tuple)]
        groups = [read if single == list(range(len(read))) else read[single]] if single else []
        makers = {image.layout: image.make for image in (self.tile, self.thumbnail) if image is not None}
        for view in views:
            if isinstance(view, tuple):
                own = read[[place[index] for index in view[1:] if isinstance(index, int)]]
                groups.append(own if view[0] == TOGETHER else makers[str(view[0])](own))
        decoded = time.perf_counter()
        counted = next((int(view[1]) for view in views if isinstance(view, tuple) and isinstance(view[1], str)), None)
        counts = {} if counted is None else {"num_frames": counted}
        try:
            made = [to_pixels(self.image_processor, group, **counts) for group in groups]
        except Unresizable as error:
            raise UnreadableClipError(clip.path, error) from error
        if self.together > 1:  # an image stands for as many frames
            made = [one.repeat(self.together // len(one), 1, 1, 1).flatten(0, 1)[None] for one in made]
        pixels = torch.cat(made) if len(made) > 1 else made[0]
        seconds["decode"] = seconds.get("decode", 0.0) + decoded - started
        seconds["preprocess"] = seconds.get("preprocess", 0.0) + time.perf_counter() - decoded
        return pixels


@dataclass(frozen=True)
class ClipRequest:
    """A clip to load, with the store's knowledge of it."""

    job: ClipJob
    known: tuple[ClipState, str, ClipInfo] | None = None  # with content hash, if it was opened before in this state
    missing: list[View] | None = None  # views that the store lacks; None if the clip is not known

    @property
    def must_read(self) -> bool:
        """Whether the clip has to be opened."""
        return self.missing is None or bool(self.missing)


def request_clip(job: ClipJob, plan: ReadPlan, store: FeatureStore, source: FeatureSource) -> ClipRequest:
    """Ask the store about a clip. Loader processes, which have no store, then load the missing views."""
    state = plan.state(job)
    known = None if state is None else store.clip(state)
    if state is None or known is None:
        return ClipRequest(job)
    try:
        _, views = plan.choose(job, known[1])
    except UnreadableClipError:
        views = []
    lacking = [view for one in source.all for view in store.missing(ClipKey(one, known[0]), views)]
    return ClipRequest(job, (state, *known), in_order(lacking))


def load_clip(request: ClipRequest, plan: ReadPlan) -> LoadedClip:
    """Pixels of the views that the store lacks, or the reason why there are none."""
    loaded = LoadedClip(request.job)
    try:
        if request.known is not None:
            loaded.state, loaded.digest, loaded.info = request.known
            loaded.indices, loaded.views = plan.choose(request.job, loaded.info)
        if request.must_read:
            _read(loaded, plan, request.missing)
    except UnreadableClipError as error:
        loaded.error = str(error)
        with suppress(OSError, ValueError):
            loaded.digest = loaded.digest or content_hash(request.job.clip)
    return loaded


def _read(loaded: LoadedClip, plan: ReadPlan, missing: list[View] | None) -> None:
    """Open the clip and decode the missing views; all views if its content is unknown or has changed."""
    job, started = loaded.job, time.perf_counter()
    with unchanging(plan, job) as state, open_clip(job.clip, plan.reader, job.fps) as clip:
        if state != loaded.state:
            try:
                digest = content_hash(job.clip)
            except OSError as error:
                raise UnreadableClipError(job.clip, error) from error
            loaded.state, loaded.digest, loaded.info = state, digest, clip.info
            (loaded.indices, loaded.views), missing = plan.choose(job, clip.info), None
        loaded.encoded = in_order(loaded.views if missing is None else missing)
        loaded.seconds["decode"] = time.perf_counter() - started
        loaded.pixels = plan.pixels(clip, loaded.encoded, loaded.seconds)


class ClipDataset(Dataset[LoadedClip]):
    """Clips to read. Views that the store has when the dataset is made are not decoded; loaders have no store."""

    def __init__(self, jobs: Sequence[ClipJob], plan: ReadPlan, store: FeatureStore, source: FeatureSource) -> None:
        self.jobs, self.plan = list(jobs), plan
        self._requests = [request_clip(job, plan, store, source) for job in self.jobs]

    @property
    def must_read(self) -> bool:
        """Whether any clip has to be opened."""
        return any(request.must_read for request in self._requests)

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, place: int) -> LoadedClip:
        return load_clip(self._requests[place], self.plan)


@contextmanager
def unchanging(plan: ReadPlan, job: ClipJob) -> Iterator[ClipState]:
    """The state of a clip. Raises UnreadableClipError if there is no clip, or it changed inside the block."""
    state = plan.state(job)
    if state is None:
        raise UnreadableClipError(job.clip, "no such file")
    yield state
    if plan.state(job) != state:
        raise UnreadableClipError(job.clip, "it was changed while it was read")


def read_again(plan: ReadPlan, loaded: LoadedClip, views: Sequence[View], seconds: dict[str, float]) -> Tensor:
    """Pixels [M, 3, S, S] of views of a clip that was read before, or known. Adds the time spent to seconds.

    Raises UnreadableClipError if the clip cannot be read or has changed.
    """
    job = loaded.job
    with unchanging(plan, job) as state, open_clip(job.clip, plan.reader, job.fps) as clip:
        if state != loaded.state:
            raise UnreadableClipError(job.clip, "it was changed while it was in use")
        return plan.pixels(clip, views, seconds)
