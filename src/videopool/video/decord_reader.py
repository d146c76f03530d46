"""Read clips with decord, frame after frame, where it agrees with the container.

decord's random access returns wrong frames on open groups of pictures and on some stream-copied cuts, and depends on
the order of access; its sequential `next()` does not. For AVI and MPEG files its times or frames differ from the
packets'. It reads neither GIF nor AV1.
"""

from pathlib import Path

import decord
import numpy as np

from videopool.video.clip import Clip, ClipInfo, UnreadableClipError, rate_of
from videopool.video.pyav_reader import PyAVClip

DECORD_ERRORS = (decord.DECORDError, RuntimeError, OSError, UnicodeError)  # the last for names that are not UTF-8
OTHER_PICTURE = 8.0  # mean difference in grey levels; two readers' RGB of one picture differ by less


class DecordClip(Clip):
    """A video file. Raises UnreadableClipError if decord cannot open it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = self._open()
        count = len(reader)
        if count == 0:
            raise UnreadableClipError(path, "no frame can be decoded")
        try:
            nominal = float(reader.get_avg_fps()) or 1.0
            starts = reader.get_frame_timestamp(range(count))[:, 0].astype(float)
        except DECORD_ERRORS as error:
            raise UnreadableClipError(path, f"decord cannot read it: {_reason(error)}") from error
        self.seconds = starts - starts[0]  # [num_frames] from the first frame
        fps, even = rate_of(self.seconds, nominal)
        self.info = ClipInfo(count, fps, None if even else self.seconds)

    def _open(self) -> "decord.VideoReader":
        try:
            return decord.VideoReader(str(self.path.absolute()), num_threads=1)
        except DECORD_ERRORS as error:
            raise UnreadableClipError(self.path, f"decord cannot open it: {_reason(error)}") from error

    def decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        reader, decoded = self._open(), {}
        for index in range(max(wanted) + 1):
            try:
                frame = reader.next()
            except StopIteration:
                break
            except DECORD_ERRORS as error:
                raise UnreadableClipError(self.path, f"frame {index}: {_reason(error)}") from error
            if index in wanted:
                decoded[index] = frame.asnumpy()
        return decoded

    def readable(self) -> int:
        reader = self._open()
        for index in range(self.info.num_frames):
            try:
                reader.next()
            except (StopIteration, *DECORD_ERRORS):
                return index  # the rest of the file is lost
        return self.info.num_frames


def trusted(path: Path) -> tuple[DecordClip | PyAVClip, str]:
    """A clip for decord; or for PyAV with the reason, where decord cannot read it or disagrees with the container.

    Raises UnreadableClipError if PyAV cannot read it either.
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
            return clip, "decord's frame times differ from the container's"
        first, ours = other.frames([0]), clip.frames([0])
    except UnreadableClipError as error:
        return clip, error.reason
    if first.shape != ours.shape or np.abs(first.astype(int) - ours).mean() > OTHER_PICTURE:
        return clip, "decord's first frame differs"
    return other, ""


def _reason(error: Exception) -> str:
    """The last sentence of the first line; the rest is a stack trace."""
    return str(error).strip().splitlines()[0].split("] ")[-1][:200]
