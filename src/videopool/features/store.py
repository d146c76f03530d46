"""What the tower makes of single frames, kept so that no frame is encoded twice in a process.

A frame's key is what determines its features: the clip's bytes, the frame's index, reader, image
processor, tower and feature layer, dtype. Pooling, projector, prompt and question are not part of it.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from videopool.video import ClipInfo


@dataclass(frozen=True)
class ClipState:
    """What is known of a file on disk without opening it: it changes when the file does.

    Attributes:
        path, size, modified: of the file; modified in nanoseconds.
    """

    path: str
    size: int
    modified: int


class FeatureStore:
    """Keeps nothing: every frame is decoded and encoded each time it is asked for."""

    def get(self, key: Hashable) -> Tensor | None:
        """A frame's features [C + H*W, Dv] (C: CLS token), or None."""
        return None

    def put(self, key: Hashable, grid: Tensor) -> None:
        """Keep a frame's features [C + H*W, Dv]."""

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        """Content hash and length of a clip that was opened before, or None."""
        return None

    def remember(self, state: ClipState, digest: str, info: ClipInfo) -> None:
        """Keep a clip's content hash and length."""


class MemoryStore(FeatureStore):
    """Keeps frames in this process's memory, least recently used ones dropped first.

    Args:
        limit_bytes: of all grids together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._grids: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._clips: dict[ClipState, tuple[str, ClipInfo]] = {}

    def get(self, key: Hashable) -> Tensor | None:
        if key not in self._grids:
            return None
        self._grids.move_to_end(key)
        return self._grids[key]

    def put(self, key: Hashable, grid: Tensor) -> None:
        size = grid.nbytes
        if size > self.limit_bytes:
            return
        if key in self._grids:
            self.bytes -= self._grids.pop(key).nbytes
        self._grids[key] = grid
        self.bytes += size
        while self.bytes > self.limit_bytes:
            _, dropped = self._grids.popitem(last=False)
            self.bytes -= dropped.nbytes

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        return self._clips.get(state)

    def remember(self, state: ClipState, digest: str, info: ClipInfo) -> None:
        self._clips[state] = (digest, info)
