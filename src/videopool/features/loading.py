"""Read clips ahead of the model, in loader processes, and only what is not known yet."""

import hashlib
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from videopool.features.store import ClipState, FeatureStore
from videopool.video import Clip, ClipInfo, Sampler, UnreadableClipError, open_clip, to_pixels


@dataclass(frozen=True)
class ClipJob:
    """One stretch of one clip, with all that is to be done with it.

    Attributes:
        clip: file or folder.
        name: of the clip within its benchmark; seeds random samplers.
        samples: what is asked about it; not looked at here.
        start, end: bounds in seconds, or None.
        fps: frames per second, where the clip is a folder of frames.
    """

    clip: Path
    name: str
    samples: tuple[Any, ...]
    start: float | None = None
    end: float | None = None
    fps: float = 3.0


@dataclass
class LoadedClip:
    """What a loader process found out about a clip.

    Attributes:
        job: the clip and its questions.
        state, digest, info: of the file; digest is its content hash.
        indices: frames that the sampler chose, in order.
        views: what the tower sees, in order: the same frames, or one image tiled of them.
        pixels: [M, 3, S, S] of the views in `encoded`; None where none was needed.
        encoded: the views in pixels.
        error: why the clip cannot be used, "" if it can.
        seconds: spent here, by kind of work.
    """

    job: ClipJob
    state: ClipState | None = None
    digest: str = ""
    info: ClipInfo | None = None
    indices: list[int] = field(default_factory=list)
    views: list[Hashable] = field(default_factory=list)
    pixels: Tensor | None = None
    encoded: list[Hashable] = field(default_factory=list)
    error: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def file_state(path: Path) -> ClipState | None:
    """Size and time of change of a file, or of the images in a folder; None if there is nothing."""
    try:
        if path.is_dir():
            parts = [p.stat() for p in sorted(path.iterdir()) if p.is_file()]
            return ClipState(str(path), sum(s.st_size for s in parts), max((s.st_mtime_ns for s in parts), default=0))
        stat = path.stat()
        return ClipState(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class LoadPlan:
    """How clips are read; the same for all clips of a point.

    Attributes:
        sampler: chooses frames.
        reader: name of the reader of videos.
        image_processor: makes pixels of views.
        tile: makes one image of a clip's frames, uint8 [T, h, w, 3] to [1, h', w', 3]; None: each frame is a view.
        layout: names what tile does, as part of the view's key.
    """

    sampler: Sampler
    reader: str
    image_processor: Any
    tile: Callable[[np.ndarray], np.ndarray] | None = None
    layout: str = ""

    def views(self, indices: Sequence[int]) -> list[Hashable]:
        """What the tower will see of these frames: keys, equal where what is seen is equal."""
        return list(indices) if self.tile is None else [(self.layout, *indices)]

    def pixels(self, clip: Clip, views: Sequence[Any], seconds: dict[str, float]) -> Tensor:
        """Views of an open clip, each once, to pixels [M, 3, S, S]. Adds the time spent to seconds."""
        started = time.perf_counter()
        if self.tile is None:
            frames = clip.frames(list(views))
        else:
            ((_, *indices),) = views
            unique = sorted(set(indices))
            read = clip.frames(unique)
            frames = self.tile(read[[unique.index(index) for index in indices]])
        decoded = time.perf_counter()
        pixels = to_pixels(self.image_processor, frames)
        seconds["decode"] = seconds.get("decode", 0.0) + decoded - started
        seconds["preprocess"] = seconds.get("preprocess", 0.0) + time.perf_counter() - decoded
        return pixels


class ClipDataset(Dataset[LoadedClip]):
    """Clips to read. Frames that the store holds when the dataset is made are not decoded.

    Args:
        jobs: clips with their questions.
        plan: sampler, reader and image processor.
        store: asked once, here; loader processes never see it.
        key_of: a view's key in the store from (content hash, view).
    """

    def __init__(self, jobs: Sequence[ClipJob], plan: LoadPlan, store: FeatureStore, key_of: Any) -> None:
        self.jobs = list(jobs)
        self.plan = plan
        self._known: list[tuple[ClipState, str, ClipInfo] | None] = []
        self._missing: list[list[Hashable] | None] = []
        for job in self.jobs:
            state = file_state(job.clip)
            known = None if state is None else store.clip(state)
            if state is None or known is None:
                self._known.append(None)
                self._missing.append(None)
                continue
            self._known.append((state, *known))
            try:
                wanted = dict.fromkeys(plan.views(self._choose(job, known[1])))
            except UnreadableClipError:
                wanted = {}
            self._missing.append([view for view in wanted if store.get(key_of(known[0], view)) is None])

    def _choose(self, job: ClipJob, info: ClipInfo) -> list[int]:
        return self.plan.sampler.indices(info, job.start, job.end, job.name)

    @property
    def must_read(self) -> bool:
        """Whether any clip has to be opened."""
        return any(missing is None or missing for missing in self._missing)

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, place: int) -> LoadedClip:
        job, known, missing = self.jobs[place], self._known[place], self._missing[place]
        loaded = LoadedClip(job)
        try:
            if known is not None:
                loaded.state, loaded.digest, loaded.info = known
                loaded.indices = self._choose(job, loaded.info)
                loaded.views = self.plan.views(loaded.indices)
                if missing:
                    self._read(loaded, missing)
            else:
                self._read(loaded, None)
        except UnreadableClipError as error:
            loaded.error = str(error)
        return loaded

    def _read(self, loaded: LoadedClip, wanted: list[Hashable] | None) -> None:
        """Open the clip and decode; wanted=None stands for all views of the frames that the sampler chooses."""
        job, started = loaded.job, time.perf_counter()
        loaded.state = file_state(job.clip)
        if loaded.state is None:
            raise UnreadableClipError(job.clip, "no such file")
        with open_clip(job.clip, self.plan.reader, job.fps) as clip:
            loaded.info = clip.info
            loaded.indices = self._choose(job, clip.info)
            loaded.views = self.plan.views(loaded.indices)
            if wanted is None:
                loaded.digest = content_hash(job.clip)
            chosen: set[Any] = set(loaded.views if wanted is None else wanted)
            loaded.encoded = sorted(chosen)
            loaded.seconds["decode"] = time.perf_counter() - started
            loaded.pixels = self.plan.pixels(clip, loaded.encoded, loaded.seconds)
