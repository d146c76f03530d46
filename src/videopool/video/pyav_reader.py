"""Read clips with PyAV (FFmpeg). The default reader.

Frame i is the i-th that FFmpeg shows when it decodes the file from its start. A pass over the packets, without
decoding, gives how many there are and when they are shown, if each packet has a time stamp of its own, in one
order, from a key frame on. Where that does not hold (clips joined end to end, stamps that repeat or are missing, a
beginning inside a group of pictures, frames stored as fields, hidden frames), the file is decoded once to count.
Frames are then decoded from the start and told by their place in the decoder's output; where that and the stamps
disagree, decoding the whole file settles whether frames are lost to damage or the stamps are wrong.

Seeking is never used: it is inexact on open groups of pictures and on stream-copied cuts. A packet that fails to
decode makes every frame up to the next key frame suspect; asking for one of those is an error, the others are exact.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData

from videopool.video.clip import ClipInfo, check_indices, stack
from videopool.video.errors import UnreadableClipError
from videopool.video.timeline import clock_jumps, rate_of, timeline

PROGRESSIVE = (0, 1)  # FFmpeg's field orders "unknown" and "progressive"; others may store a frame as two packets
HIDES_FRAMES = ("vp8",)  # codecs with packets that show nothing
CLOCK_MAY_SKIP = ("mpegts", "mpeg")


class PyAVClip:
    """A video file or GIF.

    Attributes:
        seconds: [num_frames] from the first frame.
        regular: each packet is one frame, in the order of their time stamps.

    Raises:
        UnreadableClipError: not a file that FFmpeg can read, or one without a video stream or frames.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # Indices of the frames in the decoder's order; None as long as that is the order of the stamps.
        self._numbers: list[int] | None = None
        self._stamps: list[int] = []
        self.seconds, self.info = self._scan()

    def __enter__(self) -> "PyAVClip":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def regular(self) -> bool:
        return self._numbers is None

    @contextmanager
    def _open(self) -> "Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]":
        if not self.path.is_file():
            raise UnreadableClipError(self.path, "no such file")
        if self.path.stat().st_size == 0:
            raise UnreadableClipError(self.path, "the file is empty")
        try:
            # Of a bare path, FFmpeg takes what stands before a colon for a protocol.
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
        if known and one_each and not jumps and _in_one_order(known, stamps, packets[0]):
            self._stamps = known
            stamps = [*known]
        else:
            stamps = self._decoded_stamps()
            self._numbers = list(range(len(stamps)))
        if not stamps:
            raise UnreadableClipError(self.path, "no frame can be decoded")
        seconds = timeline(stamps, tick, 1 / nominal if nominal else 1.0, jumps, may_skip)
        fps, even = rate_of(seconds, nominal)
        return seconds, ClipInfo(len(stamps), fps, None if even else seconds)

    def _decoded_stamps(self) -> list[int | None]:
        """Time stamps in the decoder's order."""
        return [frame.pts for frame, _ in self._decode()]

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        wanted = check_indices(indices, self.info.num_frames)
        missing, found = set(wanted), {}
        for index, frame, sound in self._numbered() if missing else ():
            if index in missing and sound:
                found[index] = _upright(frame)
                missing.discard(index)
            if not missing:
                break
        return stack(self.path, found, wanted)

    def readable(self) -> int:
        return len({index for index, _, sound in self._numbered() if sound})

    def _numbered(self) -> "Iterator[tuple[int, av.VideoFrame, bool]]":
        """Frames in the decoder's order, each with its index, and whether it is whole; the first ones perhaps twice."""
        for place, (frame, sound) in enumerate(self._decode()):
            if self._numbers is None and (place >= len(self._stamps) or frame.pts != self._stamps[place]):
                self._numbers = self._settled()
                yield from self._numbered()
                return
            yield place if self._numbers is None else self._numbers[place], frame, sound

    def _settled(self) -> list[int]:
        """Indices in the decoder's order, where it gives other stamps than the packets have."""
        shown = self._decoded_stamps()
        number = {stamp: index for index, stamp in enumerate(self._stamps)}
        indices = [number.get(stamp, -1) for stamp in shown if stamp is not None]
        some_lost = len(indices) == len(shown) and all(a < b for a, b in zip([-1, *indices], indices, strict=False))
        return indices if some_lost else list(range(len(shown)))

    def _decode(self) -> "Iterator[tuple[av.VideoFrame, bool]]":
        """Frames in the decoder's order, each with whether it is whole: no damage may have reached it."""
        suspect: set[int] = set()
        begun = damaged = False  # before the first key frame, what FFmpeg can show counts as whole
        with self._open() as (container, stream):
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    return
                except av.error.FFmpegError:
                    return  # the rest of the file is unreadable; frames that were wanted from it stay missing
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


def _in_one_order(known: list[int], stamps: list[int | None], first: tuple[int | None, int | None, bool, bool]) -> bool:
    """Whether time stamps tell frames apart and say their order, with nothing shown before the first key frame."""
    pts, _, key, _ = first
    return len(set(known)) == len(stamps) and key and pts is not None and pts <= known[0]


def _upright(frame: "av.VideoFrame") -> np.ndarray:
    """A frame's RGB, uint8 [height, width, 3], turned and mirrored by its display matrix to the nearest right angle."""
    image = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # the stubs ask for a name
    if matrix is None:
        return image
    # A point (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32)
    if abs(int(b)) > abs(int(a)):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
