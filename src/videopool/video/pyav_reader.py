"""Read clips with PyAV (FFmpeg). The default reader.

Presentation order comes from the time stamps of all packets, which costs a pass over the file without
decoding; frames are then decoded from the start and matched by time stamp. Seeking is never used: it is
inexact on open groups of pictures and on stream-copied cuts. A packet that fails to decode makes every
frame up to the next key frame suspect; asking for one of those is an error, the others are exact.
"""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from videopool.video.clip import ClipInfo, check_indices, stack
from videopool.video.errors import UnreadableClipError

EVEN_SPACING = 0.5  # time stamps within so many frame durations of an even spacing count as even


class PyAVClip:
    """A video file or GIF.

    Raises:
        UnreadableClipError: not a file that FFmpeg can read, or one without a video stream or frames.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = self._scan()

    def __enter__(self) -> "PyAVClip":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _open(self) -> "av.container.InputContainer":
        if not self.path.is_file():
            raise UnreadableClipError(self.path, "no such file")
        if self.path.stat().st_size == 0:
            raise UnreadableClipError(self.path, "the file is empty")
        try:
            container = av.open(str(self.path))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UnreadableClipError(self.path, f"FFmpeg cannot open it: {_reason(error)}") from error
        if not container.streams.video:
            container.close()
            raise UnreadableClipError(self.path, "no video stream")
        return container

    def _scan(self) -> ClipInfo:
        with self._open() as container:
            stream = container.streams.video[0]
            rate, base = stream.average_rate, stream.time_base
            stamps: list[int] = []
            unstamped = 0
            try:
                for packet in container.demux(stream):
                    if packet.size and not packet.is_discard:
                        if packet.pts is None:
                            unstamped += 1
                        else:
                            stamps.append(packet.pts)
            except av.error.FFmpegError as error:
                raise UnreadableClipError(self.path, f"FFmpeg cannot read it: {_reason(error)}") from error
        # Some containers (AVI, raw streams) stamp no packets; decoding then gives the time stamps.
        self._stamps = self._decoded_stamps() if unstamped or not stamps else sorted(set(stamps))
        if not self._stamps:
            raise UnreadableClipError(self.path, "no frame can be decoded")
        seconds = (np.array(self._stamps) - self._stamps[0]) * float(base or 1)
        span = float(seconds[-1])
        fps = float(rate) if rate else (len(seconds) - 1) / span if span > 0 else 1.0
        even = np.abs(seconds - np.arange(len(seconds)) / fps).max() <= EVEN_SPACING / fps
        return ClipInfo(len(self._stamps), fps, None if even else seconds)

    def _decoded_stamps(self) -> list[int]:
        with self._open() as container:
            stamps = [frame.pts for frame in _decode(container, set())]
        return sorted({pts for pts in stamps if pts is not None})

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        wanted = check_indices(indices, self.info.num_frames)
        number = {pts: index for index, pts in enumerate(self._stamps)}
        missing, found = set(wanted), {}
        suspect: set[int] = set()
        with self._open() as container:
            for frame in _decode(container, suspect):
                index = number.get(frame.pts)
                if index in missing and not frame.is_corrupt and frame.pts not in suspect:
                    image = frame.to_ndarray(format="rgb24")
                    found[index] = np.rot90(image, round(frame.rotation / 90) % 4)
                    missing.discard(index)
                if not missing:
                    break
        return stack(self.path, found, wanted)


def _decode(container: "av.container.InputContainer", suspect: set[int]):
    """Frames in the decoder's order; time stamps of packets that damage may have reached go into suspect."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # with more, an error is reported for a later packet
    damaged = False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            return  # the rest of the file is unreadable; frames that were wanted from it stay missing
        if packet.is_keyframe:
            damaged = False
        try:
            decoded = packet.decode()
        except av.error.FFmpegError:
            damaged, decoded = True, []
        if damaged and packet.pts is not None:
            suspect.add(packet.pts)
        yield from decoded


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
