"""Read clips with decord, frame after frame, where it agrees with the container.

decord's random access returns other frames than asked for on open groups of pictures and on some
stream-copied cuts, and depends on the order of access; its sequential `next()` does not. Of AVI and MPEG files it
tells other times or frames than the packets have, and it reads neither GIF nor AV1.
"""

from collections.abc import Sequence
from pathlib import Path

import decord
import numpy as np

from videopool.video.clip import ClipInfo, check_indices, stack
from videopool.video.errors import UnreadableClipError
from videopool.video.pyav_reader import PyAVClip
from videopool.video.timeline import rate_of

DECORD_ERRORS = (decord.DECORDError, RuntimeError, OSError, UnicodeError)  # the last for names that are no UTF-8
OTHER_PICTURE = 8.0  # grey levels; the readers' conversions of one picture to RGB are nearer on average


class DecordClip:
    """A video file.

    Attributes:
        seconds: [num_frames] from the first frame.

    Raises:
        UnreadableClipError: decord cannot open it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UnreadableClipError(self.path, "no such file")
        if self.path.stat().st_size == 0:
            raise UnreadableClipError(self.path, "the file is empty")
        reader = self._open()
        try:
            count = len(reader)
            if count == 0:
                raise UnreadableClipError(self.path, "no frame can be decoded")
            fps = float(reader.get_avg_fps()) or 1.0
            starts = reader.get_frame_timestamp(range(count))[:, 0].astype(float)
        except DECORD_ERRORS as error:
            raise UnreadableClipError(self.path, f"decord cannot read it: {_reason(error)}") from error
        self.seconds = starts - starts[0]
        fps, even = rate_of(self.seconds, fps)
        self.info = ClipInfo(count, fps, None if even else self.seconds)

    def __enter__(self) -> "DecordClip":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _open(self) -> "decord.VideoReader":
        try:
            return decord.VideoReader(str(self.path.absolute()), num_threads=1)
        except DECORD_ERRORS as error:
            raise UnreadableClipError(self.path, f"decord cannot open it: {_reason(error)}") from error

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        wanted = check_indices(indices, self.info.num_frames)
        found: dict[int, np.ndarray] = {}
        reader, missing = self._open(), set(wanted)
        for index in range(max(wanted, default=-1) + 1):
            try:
                frame = reader.next()
            except StopIteration:
                break
            except DECORD_ERRORS as error:
                raise UnreadableClipError(self.path, f"frame {index}: {_reason(error)}") from error
            if index in missing:
                found[index] = frame.asnumpy()
        return stack(self.path, found, wanted)

    def readable(self) -> int:
        reader = self._open()
        for index in range(self.info.num_frames):
            try:
                reader.next()
            except (StopIteration, *DECORD_ERRORS):
                return index  # the rest of the file is lost
        return self.info.num_frames


def trusted(path: str | Path) -> "tuple[DecordClip | PyAVClip, str]":
    """A clip read by decord; or by PyAV, and why, where decord cannot read it or disagrees with the container.

    Raises:
        UnreadableClipError: PyAV cannot read it either.
    """
    clip = PyAVClip(path)
    if not clip.regular:
        return clip, "its packets do not say one by one which frames are shown, and when"
    try:
        other = DecordClip(path)
        count, frames = other.info.num_frames, clip.info.num_frames
        if count != frames:
            return clip, f"decord counts {count} frames, the container has {frames}"
        if np.abs(other.seconds - clip.seconds).max() > 0.5 / clip.info.fps or (np.diff(other.seconds) < 0).any():
            return clip, "decord's times of its frames are not those of the container"
        first, ours = other.frames([0]), clip.frames([0])
    except UnreadableClipError as error:
        return clip, error.reason
    if first.shape != ours.shape or np.abs(first.astype(int) - ours).mean() > OTHER_PICTURE:
        return clip, "decord's first frame is another"
    return other, ""


def _reason(error: Exception) -> str:
    """decord's messages carry a stack trace; its last sentence of the first line says what happened."""
    return str(error).strip().splitlines()[0].split("] ")[-1][:200]
