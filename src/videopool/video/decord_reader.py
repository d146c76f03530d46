"""Read clips with decord, frame after frame.

decord's random access returns other frames than asked for on open groups of pictures and on some
stream-copied cuts, and depends on the order of access; its sequential `next()` does not. decord reads
neither GIF nor AV1.
"""

from collections.abc import Sequence
from pathlib import Path

import decord
import numpy as np

from videopool.video.clip import ClipInfo, check_indices, stack
from videopool.video.errors import UnreadableClipError

DECORD_ERRORS = (decord.DECORDError, RuntimeError, OSError)


class DecordClip:
    """A video file.

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
        seconds = starts - starts[0]
        even = np.abs(seconds - np.arange(count) / fps).max() <= 0.5 / fps
        self.info = ClipInfo(count, fps, None if even else seconds)

    def __enter__(self) -> "DecordClip":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _open(self) -> "decord.VideoReader":
        try:
            return decord.VideoReader(str(self.path), num_threads=1)
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


def _reason(error: Exception) -> str:
    """decord's messages carry a stack trace; its last sentence of the first line says what happened."""
    return str(error).strip().splitlines()[0].split("] ")[-1][:200]
