"""What every reader offers: an opened clip whose frame i is the i-th frame in presentation order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from videopool.video.errors import UnreadableClipError


@dataclass(frozen=True)
class ClipInfo:
    """Length and timing of a clip.

    Attributes:
        num_frames: frames that a reader can be asked for, 0 .. num_frames - 1.
        fps: frames per second (mean rate where frames are unevenly spaced).
        timestamps: [num_frames] seconds from the first frame; None where frames are evenly spaced.
        first_index: number of the first frame where files number frames; bounds in seconds are turned
            into frame numbers, which then start here.
    """

    num_frames: int
    fps: float
    timestamps: np.ndarray | None = None
    first_index: int = 0


class Clip(Protocol):
    """An opened clip. Readers open files on entry and close them on exit; share none between threads."""

    info: ClipInfo

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Frames in the order asked for, uint8 [len(indices), height, width, 3] RGB.

        Raises:
            UnreadableClipError: a frame cannot be decoded.
            IndexError: an index is no integer in 0 .. num_frames - 1.
        """
        ...

    def readable(self) -> int:
        """How many of the frames can be decoded, all of them tried.

        Raises:
            UnreadableClipError: an image of a folder cannot be read.
        """
        ...

    def __enter__(self) -> "Clip": ...

    def __exit__(self, *_: object) -> None: ...


def check_indices(indices: Sequence[int], num_frames: int) -> list[int]:
    """The indices as plain integers. Raises IndexError for one that names no frame."""
    checked = []
    for index in indices:
        if isinstance(index, bool) or int(index) != index or not 0 <= index < num_frames:
            raise IndexError(f"frame index {index!r} is not an integer in 0..{num_frames - 1}")
        checked.append(int(index))
    return checked


def stack(path: str | Path, found: dict[int, np.ndarray], indices: Sequence[int]) -> np.ndarray:
    """Frames by index to one array. Raises UnreadableClipError where one is missing or sizes differ."""
    for index in indices:
        if index not in found:
            raise UnreadableClipError(path, f"frame {index} cannot be decoded")
    if len({found[i].shape for i in indices}) > 1:
        raise UnreadableClipError(path, "frames differ in size")
    return np.stack([found[i] for i in indices]) if indices else np.zeros((0, 0, 0, 3), np.uint8)
