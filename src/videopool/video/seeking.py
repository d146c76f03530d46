"""Frames of a long video without decoding all that comes before them, or nothing where that would not be exact.

The pass over the packets that counts the frames also says which are key frames. A frame is decoded from the last key
frame that precedes it both in the file and on the screen: frames between a key frame and the pictures shown before it
may need the previous group. Everything is checked against the packets: where a seek lands, each packet's stamp, each
decoded frame's stamp, in a row from the key frame on, which must be a picture of its own. The first frame that is
reached by a seek is also decoded from one key frame earlier and must come out equal, bit for bit. If anything differs,
the caller reads from the start.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.video.frame import PictureType

LONG = 1000  # packets; shorter reads start at the beginning
WORTH = 2  # times fewer packets must be decoded
NEAR = 32  # packets to the next key frame that are decoded rather than jumped over


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a regular file (one frame each, stamps all different), in the file's order."""

    stamps: np.ndarray  # [packets] presentation times, in the stream's unit
    keys: np.ndarray  # [keys] places of key frames, ascending

    def shown(self) -> np.ndarray:
        """Stamps in the order of the screen: frame i has the i-th."""
        return np.sort(self.stamps)


@dataclass(frozen=True)
class Stretch:
    """Frames to be decoded from one key frame on."""

    key: int  # the key frame's place among the packets
    end: int  # the last packet that is needed
    frames: tuple[int, ...]  # indices in presentation order


def stretches(index: PacketIndex, wanted: Sequence[int]) -> list[Stretch]:
    """The stretches that hold the wanted frames, in the file's order."""
    order = np.argsort(index.stamps)  # by frame, its packet's place
    shown = index.stamps[order]
    key_stamps = index.stamps[index.keys]
    found: list[Stretch] = []
    for frame in sorted(wanted, key=lambda frame: int(order[frame])):
        place = int(order[frame])
        number = int(np.searchsorted(index.keys, place, side="right")) - 1
        while number > 0 and key_stamps[number] > shown[frame]:
            number -= 1
        key = int(index.keys[number])
        if found and key - found[-1].end <= NEAR:
            last = found[-1]
            found[-1] = Stretch(last.key, max(last.end, place), (*last.frames, frame))
        else:
            found.append(Stretch(key, place, (frame,)))
    return found


def worth_seeking(parts: Sequence[Stretch]) -> bool:
    """Whether seeking decodes far fewer packets than reading from the start."""
    whole = max(part.end for part in parts) + 1
    return whole > LONG and WORTH * sum(part.end - part.key + 1 for part in parts) < whole


class Seeker:
    """Decodes stretches of an opened file; None as soon as something is not as the packets say."""

    def __init__(
        self, container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", index: PacketIndex
    ) -> None:
        self.container, self.stream, self.index = container, stream, index
        self.shown = index.shown()
        self.places = {int(stamp): place for place, stamp in enumerate(index.stamps)}

    def exact(self, part: Stretch) -> bool:
        """Whether a stretch's first frame is the same when decoded from one key frame earlier."""
        number = int(np.searchsorted(self.index.keys, part.key))
        if not number:
            return True
        first = Stretch(part.key, part.end, part.frames[:1])
        here = self.decode(first)
        before = self.decode(Stretch(int(self.index.keys[number - 1]), part.end, first.frames))
        if here is None or before is None:
            return False
        return all(_same(here[frame], before[frame]) for frame in first.frames)

    def decode(self, part: Stretch) -> "dict[int, av.VideoFrame] | None":
        """Its frames by index."""
        begin = expected = int(np.searchsorted(self.shown, self.index.stamps[part.key]))
        missing, found = set(part.frames), {}
        try:
            for packet in self._packets(part.key):
                for frame in packet.decode():
                    if frame.pts is not None and frame.pts < self.index.stamps[part.key]:
                        continue  # needs the group before
                    if expected >= len(self.shown) or frame.pts != self.shown[expected] or frame.is_corrupt:
                        return None
                    if expected == begin and frame.pict_type != PictureType.I:
                        return None  # a key frame by its container's word alone
                    if expected in missing:
                        found[expected] = frame
                        missing.remove(expected)
                    expected += 1
                if not missing:
                    return found
        except (av.error.FFmpegError, _Elsewhere):
            return None
        return None

    def _packets(self, key: int) -> "Iterator[av.Packet]":
        """The packets from a key frame on, and at last the one that empties the decoder."""
        self.container.seek(int(self.index.stamps[key]), stream=self.stream)
        place = -1
        for packet in self.container.demux(self.stream):
            if not packet.size:
                yield packet
                return
            if place < 0:
                place = self.places.get(packet.pts, -1) if packet.pts is not None else -1
                if not 0 <= place <= key:
                    raise _Elsewhere
            if place >= len(self.index.stamps) or packet.pts != self.index.stamps[place]:
                raise _Elsewhere
            if place >= key:
                yield packet
            place += 1


class _Elsewhere(Exception):
    """A seek led past the key frame, or to packets that are not in the index."""


def _same(frame: "av.VideoFrame", other: "av.VideoFrame") -> bool:
    return bool(np.array_equal(frame.to_ndarray(), other.to_ndarray()))
