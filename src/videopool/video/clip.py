"""An opened clip, whatever file it comes from, and the errors of clips."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from videopool.errors import UserError


def printable(name: str) -> str:
    """A file name as text that can be printed and written: bytes that are not UTF-8 become \\udc and two digits."""
    return name.encode("utf-8", "backslashreplace").decode()


class UnreadableClipError(UserError):
    """A clip cannot be read: it is missing, empty, damaged, or has no video stream. `reason` is one line."""

    def __init__(self, path: str | Path, reason: str | Exception) -> None:
        self.path = printable(str(path))
        text = getattr(reason, "strerror", None) or str(reason)
        self.reason = " ".join(printable(text).split())
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)


class ClipBoundsError(UnreadableClipError):
    """Start and end of a sample lie outside its clip, or in the wrong order."""


@dataclass(frozen=True)
class ClipInfo:
    """Length and timing of a clip."""

    num_frames: int  # indices are 0 .. num_frames - 1
    fps: float  # frames per second; the mean rate where frames are unevenly spaced
    timestamps: np.ndarray | None = None  # [num_frames] seconds from the first frame; None for even spacing
    first_index: int = 0  # number of the first frame, for bounds in seconds that become frame numbers


class Clip(ABC):
    """An opened clip: frame i is the i-th in presentation order. Not for several threads at once."""

    path: Path  # file or folder
    info: ClipInfo

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Frames in the order of the indices, uint8 [len(indices), height, width, 3] RGB.

        Raises:
            UnreadableClipError: a frame cannot be decoded, or frames differ in size.
            IndexError: an index is not an integer in 0 .. num_frames - 1.
        """
        last = self.info.num_frames - 1
        for index in indices:
            if isinstance(index, bool) or int(index) != index or not 0 <= index <= last:
                raise IndexError(f"frame index {index!r} is not an integer in 0..{last}")
        wanted = [int(index) for index in indices]
        if not wanted:
            return np.zeros((0, 0, 0, 3), np.uint8)
        decoded = self.decode(set(wanted))
        if lost := [index for index in wanted if index not in decoded]:
            raise UnreadableClipError(self.path, f"frame {lost[0]} cannot be decoded")
        if len({image.shape for image in decoded.values()}) > 1:
            raise UnreadableClipError(self.path, "frames differ in size")
        return np.stack([decoded[index] for index in wanted])

    @abstractmethod
    def decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        """RGB of frames by index, uint8 [height, width, 3]; without those lost to damage."""

    @abstractmethod
    def readable(self) -> int:
        """How many frames can be decoded; tries all. Raises UnreadableClipError if a folder's image is unreadable."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None  # no reader keeps a file open between calls
