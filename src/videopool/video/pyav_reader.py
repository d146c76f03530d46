"""Read clips with PyAV (FFmpeg). The default reader.

Frame i is the i-th frame of a decoding from the start. Regular files start at a key frame and have one packet with its
own time stamp per frame: a pass over the packets counts and times them without decoding. Other files are decoded once
to count: joined clips, repeated or missing stamps, a start inside a group of pictures, frames stored as fields, hidden
frames. Frames are identified by their place in the decoder's output. If that disagrees with the stamps, decoding the
whole file settles whether frames are lost to damage or the stamps are wrong.

A few frames of a long, regular file are reached by seeking, where checks show that it is exact (seeking.py). All else
is decoded from the start: seeking is inexact on open groups of pictures and on stream-copied cuts. A packet that fails
to decode makes all frames up to the next key frame suspect; asking for one of those is an error, the others are exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData

from videopool.video import seeking
from videopool.video.clip import Clip, ClipInfo, UnreadableClipError, clock_jumps, rate_of, timeline

PROGRESSIVE = (0, 1)  # FFmpeg's field orders "unknown" and "progressive"; others may store a frame as two packets
HIDES_FRAMES = ("vp8",)  # codecs with packets that show no frame
CLOCK_MAY_SKIP = ("mpegts", "mpeg")


class PyAVClip(Clip):
    """A video file or GIF. Raises UnreadableClipError if FFmpeg cannot read it, or finds no video stream or frames."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Indices of the frames in the decoder's order; None while that is the order of the stamps.
        self._numbers: list[int] | None = None
        self._stamps: list[int] = []
        self._index: seeking.PacketIndex | None = None  # of a regular file, until a seek has proved inexact
        self.seconds, self.info = self._scan()  # seconds [num_frames] from the first frame

    @property
    def regular(self) -> bool:
        """Each packet is one frame, in the order of the time stamps."""
        return self._numbers is None

    @contextmanager
    def _open(self) -> "Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]":
        if not self.path.is_file():
            raise UnreadableClipError(self.path, "no such file")
        if self.path.stat().st_size == 0:
            raise UnreadableClipError(self.path, "the file is empty")
        try:
            # In a bare path, FFmpeg takes the text before a colon for a protocol.
            container = av.open(f"file:{self.path}")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UnreadableClipError(self.path, f"FFmpeg cannot open it: {_reason(error)}") from error
        with container:
            cover = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not streams:
                raise UnreadableClipError(self.path, "no video stream")
            streams[0].codec_context.thread_count = 1  # with more, an error is reported for a later packet
            yield container, streams[0]

    def _scan(self) -> tuple[np.ndarray, ClipInfo]:
        with self._open() as (container, stream):
            nominal, tick = float(stream.average_rate or 0), float(stream.time_base or 1)
            may_skip = container.format.name in CLOCK_MAY_SKIP
            context = stream.codec_context
            one_each = context.field_order in PROGRESSIVE and context.name not in HIDES_FRAMES
            try:
                packets = [
                    (packet.pts, packet.dts, packet.is_keyframe, packet.is_discard)
                    for packet in container.demux(stream)
                    if packet.size
                ]
            except av.error.FFmpegError as error:
                raise UnreadableClipError(self.path, f"FFmpeg cannot read it: {_reason(error)}") from error
        jumps = clock_jumps([dts for _, dts, _, _ in packets], tick, may_skip)
        stamps: list[int | None] = [pts for pts, _, _, discard in packets if not discard]
        known = sorted(stamp for stamp in stamps if stamp is not None)
        # Stamps differ from frame to frame, and nothing is shown before the first key frame.
        pts, _, starts_at_key, _ = packets[0] if packets else (None, None, False, False)
        in_order = len(set(known)) == len(stamps) > 0 and pts is not None and pts <= known[0]
        if one_each and not jumps and starts_at_key and in_order:
            self._stamps = known
            keys = np.flatnonzero([key for _, _, key, _ in packets])
            if len(known) == len(packets):  # none is discarded
                self._index = seeking.PacketIndex(np.array([pts for pts, *_ in packets]), keys)
            stamps = [*known]
        else:
            stamps = [frame.pts for frame, _ in self._decode()]
            self._numbers = list(range(len(stamps)))
        if not stamps:
            raise UnreadableClipError(self.path, "no frame can be decoded")
        seconds = timeline(stamps, tick, 1 / nominal if nominal else 1.0, jumps, may_skip)
        fps, even = rate_of(seconds, nominal)
        return seconds, ClipInfo(len(stamps), fps, None if even else seconds)

    def decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        if (reached := self._reached(wanted)) is not None:
            return reached
        decoded: dict[int, np.ndarray] = {}
        for index, frame, sound in self._numbered():
            if sound and index in wanted and index not in decoded:
                decoded[index] = _upright(frame)
                if len(decoded) == len(wanted):
                    break
        return decoded

    def _reached(self, wanted: set[int]) -> dict[int, np.ndarray] | None:
        """The wanted frames by seeking; None if that is not worth it, or not exact."""
        parts = seeking.stretches(self._index, sorted(wanted)) if self._index and wanted else []
        if not parts or self._index is None or not seeking.worth_seeking(parts):
            return None
        decoded: dict[int, np.ndarray] = {}
        with self._open() as (container, stream):
            seeker = seeking.Seeker(container, stream, self._index)
            sure = seeker.exact(next((part for part in parts if part.key), parts[0]))
            for part in parts if sure else ():
                if (frames := seeker.decode(part)) is None:
                    break
                decoded |= {index: _upright(frame) for index, frame in frames.items()}
        if decoded.keys() != wanted:
            self._index = None
            return None
        return decoded

    def readable(self) -> int:
        return len({index for index, _, sound in self._numbered() if sound})

    def _numbered(self) -> "Iterator[tuple[int, av.VideoFrame, bool]]":
        """Frames in the decoder's order, each with its index and whether it is whole. May start over once."""
        for place, (frame, sound) in enumerate(self._decode()):
            if self._numbers is None and (place >= len(self._stamps) or frame.pts != self._stamps[place]):
                self._numbers = self._settled()
                yield from self._numbered()
                return
            yield place if self._numbers is None else self._numbers[place], frame, sound

    def _settled(self) -> list[int]:
        """Indices in the decoder's order, where its stamps differ from the packets'."""
        shown = [frame.pts for frame, _ in self._decode()]
        number = {stamp: index for index, stamp in enumerate(self._stamps)}
        indices = [number.get(stamp, -1) for stamp in shown if stamp is not None]
        some_lost = len(indices) == len(shown) and all(a < b for a, b in zip([-1, *indices], indices, strict=False))
        return indices if some_lost else list(range(len(shown)))

    def _decode(self) -> "Iterator[tuple[av.VideoFrame, bool]]":
        """Frames in the decoder's order, each with whether it is whole, i.e. no damage can have reached it."""
        suspect: set[int] = set()
        begun = damaged = False  # frames before the first key frame count as whole
        with self._open() as (container, stream):
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except (StopIteration, av.error.FFmpegError):
                    return  # the end, or the rest of the file is unreadable and its frames stay missing
                if packet.is_keyframe:
                    begun, damaged = True, False
                try:
                    decoded = packet.decode()
                except av.error.FFmpegError:
                    damaged, decoded = begun, []
                if damaged and packet.pts is not None:
                    suspect.add(packet.pts)
                for frame in decoded:
                    stamped = frame.pts in suspect if frame.pts is not None else damaged
                    yield frame, not (begun and (stamped or frame.is_corrupt))


def _upright(frame: "av.VideoFrame") -> np.ndarray:
    """A frame's RGB, uint8 [height, width, 3], rotated and mirrored by its display matrix in steps of 90 degrees."""
    image = frame.to_ndarray(format="rgb24")
    # Not frame.side_data, which is a reference cycle: a forked process may collect it, and hangs freeing the frame.
    matrix = SideDataContainer(frame).get(SideData.DISPLAYMATRIX)  # type: ignore[call-arg]  # missing in the stubs
    if matrix is None:
        return image
    # The display matrix takes (x, y) to (a x + c y, b x + d y).
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32)
    if abs(int(b)) > abs(int(a)):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
