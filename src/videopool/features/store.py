"""What every store of features offers, and the one that keeps nothing.

A view's features depend on its FrameSource, on the clip's bytes and on the view, and those are their key. A
store may round (see rounding.py); it then hands back the rounded features of what it is given too, so that
a point computes with the same values whether a view was kept or has just been encoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from videopool.features.source import ClipKey, View
from videopool.video import ClipInfo


@dataclass(frozen=True)
class ClipState:
    """What is known of a clip on disk without opening it: it changes when the clip does.

    Attributes:
        path: absolute.
        size: bytes, of all files of a folder together.
        modified: time of change in nanoseconds; of a folder, a hash of its files' names, sizes and times.
        opened: how the clip is opened, which its length and timing depend on.
    """

    path: str
    size: int
    modified: int
    opened: str


class FeatureStore:
    """Keeps nothing: every frame is decoded and encoded each time it is asked for.

    Attributes:
        dtype: that features are kept in; None for the model's own.
    """

    dtype: str | None = None

    def missing(self, clip: ClipKey, views: Sequence[View]) -> list[View]:
        """Which views of a clip are not kept, each once, in their order. Reads no features."""
        return list(dict.fromkeys(views))

    def get(self, clip: ClipKey, views: Sequence[View]) -> dict[View, Tensor]:
        """Features [C + H*W, Dv] (CPU) of those views that are kept. They are shared: do not change them."""
        return {}

    def put(self, clip: ClipKey, features: Mapping[View, Tensor]) -> dict[View, Tensor]:
        """Keep the features [C + H*W, Dv] (CPU) of views of one clip that were encoded together.

        Returns:
            The features as they are kept: what to go on computing with.

        Raises:
            FeatureStoreError: a value is out of the range of the store's dtype; nothing is kept.
        """
        return dict(features)

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        """Content hash, and length and timing, of a clip that was opened before in this state, or None."""
        return None

    def remember(self, state: ClipState, content: str, info: ClipInfo) -> None:
        """Keep a clip's content hash, length and timing."""

    def finish(self) -> list[str]:
        """The end of a point: finish what is under way. Returns what went wrong since the last end, a line each."""
        return []
