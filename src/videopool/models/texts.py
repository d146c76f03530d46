"""The texts that a family writes around the frames of a clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

FRAMES, BLOCK = "frames", "block"  # layouts: what a family writes around each frame; all tokens in one run
LAYOUTS = (FRAMES, BLOCK)


class Stamps(NamedTuple):
    """When the frames of a clip are shown."""

    times: Sequence[float]  # seconds from the clip's first frame
    duration: float  # of the whole clip, in seconds
    still: bool = False  # an image, not a clip of one frame


@dataclass(frozen=True)
class FrameTexts:
    """Texts of one clip. Frames of which no token is left lose theirs.

    `before` and `after` are by frame; () stands for no text. `opening` and `closing` stand around the one run of
    tokens of layout=block, in place of the frames' own.
    """

    head: str = ""
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    tail: str = ""
    opening: str = ""
    closing: str = ""

    def between(self, one: int, other: int) -> str:
        """What stands between the tokens of two frames that follow each other."""
        return (self.after[one] if self.after else "") + (self.before[other] if self.before else "")

    def around(self, frames: Sequence[int], layout: str = FRAMES) -> tuple[str, str]:
        """What stands before and behind the tokens of some frames, in order."""
        first, last = self.opening, self.closing
        if layout == FRAMES:
            first = self.before[frames[0]] if frames and self.before else ""
            last = self.after[frames[-1]] if frames and self.after else ""
        return self.head + first, last + self.tail
