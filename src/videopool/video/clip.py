"""An opened clip, whatever file it comes from; the times of its frames; the errors of clips."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videopool.errors import UserError

EVEN_SPACING = 0.5  # times this close to an even spacing, in frame durations, count as even
CLOCK_GAP = 10.0  # seconds; FFmpeg's -dts_delta_threshold, where a container's clock may jump


def printable(name: str) -> str:
    """A file name as text that can be printed and written: bytes that are not UTF-8 become \\udc and two digits."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


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


class Clip(AbstractContextManager["Clip"]):
    """An opened clip: frame i is the i-th in presentation order. Not for several threads at once."""

    path: Path  # file or folder
    info: ClipInfo

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Frames in the order of the indices, uint8 [len(indices), height, width, 3] RGB.

        Raises UnreadableClipError if a frame cannot be decoded, or frames differ in size, and IndexError if an index is
        not an integer in 0 .. num_frames - 1.
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

    def __exit__(self, *_: object) -> None:
        return None  # no reader keeps a file open between calls


def clock_jumps(stamps: Sequence[int | None], tick: float, may_skip: bool) -> bool:
    """Whether clips were joined: the clock goes backwards or, with `may_skip`, far ahead.

    `stamps` are decoding time stamps in the file's order, in units of `tick` seconds.
    """
    steps = np.diff(np.array([stamp for stamp in stamps if stamp is not None], float)) * tick
    return bool((steps < 0).any() or (may_skip and (steps > CLOCK_GAP).any()))


def timeline(stamps: Sequence[int | None], tick: float, period: float, jumps: bool, may_skip: bool) -> np.ndarray:
    """Seconds [num_frames] from the first frame, never falling.

    `stamps` are presentation time stamps in presentation order, in units of `tick` seconds; `period` is the time
    between frames, for missing stamps (None) and where clips were joined. If the clock `jumps`, a joined clip goes on
    one period after the previous one (with `may_skip`, after a gap of CLOCK_GAP too); otherwise stamps out of order
    belong to the frames in ascending order.
    """
    known = [place for place, stamp in enumerate(stamps) if stamp is not None]
    if not known:
        return np.arange(len(stamps)) * period
    seconds = np.array([stamps[place] for place in known], float) * tick
    if jumps:
        steps = np.diff(seconds)
        joined = (steps < 0) | (may_skip & (steps > CLOCK_GAP))
        steps[joined] = period * np.diff(known)[joined]
        seconds = np.concatenate([seconds[:1], seconds[0] + np.cumsum(steps)])
    else:
        seconds = np.sort(seconds)
    before, after = np.arange(known[0], 0, -1) * period, np.arange(1, len(stamps) - known[-1]) * period
    between = np.interp(np.arange(known[0], known[-1] + 1), known, seconds)
    times = np.concatenate([seconds[0] - before, between, seconds[-1] + after])
    return times - times[0]


def rate_of(seconds: np.ndarray, nominal: float) -> tuple[float, bool]:
    """Frames per second of frames at `seconds` [num_frames]; and whether they are evenly spaced.

    The nominal rate (the container's, 0 if unknown) if frames are evenly spaced at it, else the mean rate.
    """
    span = float(seconds[-1])
    mean = (len(seconds) - 1) / span if span > 0 else nominal or 1.0
    fps = nominal or mean
    even = np.abs(seconds - np.arange(len(seconds)) / fps).max() <= EVEN_SPACING / fps
    return (fps if even else mean), bool(even)
