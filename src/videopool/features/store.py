"""The interface of feature stores, and those that need no disk.

A view's features are a function of their key: FeatureSource, the clip's bytes, view. A store may round; its put() then
returns the rounded features, so that a point computes with the same values cold and warm.

Rounding is to the nearest. Relative error in the dtype's normal range: at most 2^-11 for float16, 2^-8 for bfloat16.
Below 2^-14, float16 has an absolute error of at most 2^-25 instead.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videopool.errors import UserError
from videopool.features.source import ClipKey, FeatureSource, View
from videopool.video import ClipInfo

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
LOSSLESS = {("float16", "float32"), ("bfloat16", "float32")}


class FeatureStoreError(UserError, ValueError):
    """A store with wrong settings, or features that it cannot hold."""


def rounds(own: str, kept: str | None, precision: object = None) -> str | None:
    """The dtype that features are rounded to, from those of model and store; None if the store changes no value."""
    # With a precision of the trainer, the features' dtype may differ from the model's.
    if kept is None or (precision is None and (own == kept or (own, kept) in LOSSLESS)):
        return None
    return kept


def round_features(features: Mapping[View, Tensor], dtype: str | None) -> dict[View, Tensor]:
    """Features in a store's dtype; unchanged for None. Raises FeatureStoreError if a finite value is out of range."""
    if dtype is None:
        return dict(features)
    rounded = {view: own.to(DTYPES[dtype]) for view, own in features.items()}
    for view, own in features.items():
        if own.dtype != DTYPES[dtype] and not finite(rounded[view]) and finite(own):
            wider = "bfloat16" if dtype == "float16" else "float32"
            raise FeatureStoreError(
                f"features.dtype={dtype} holds values up to {torch.finfo(DTYPES[dtype]).max:.4g}, the tower's reach "
                f"{float(own.abs().max()):.4g}: say features.dtype={wider}"
            )
    return rounded


def finite(features: Tensor) -> bool:
    """Whether there is neither infinity nor NaN. True for an empty tensor."""
    if not features.numel():
        return True
    low, high = torch.aminmax(features)  # NaN propagates to both; much faster than torch.isfinite
    return math.isfinite(low) and math.isfinite(high)


@dataclass(frozen=True)
class ClipState:
    """A clip on disk, without opening it; differs after a change of the clip."""

    path: str  # absolute
    size: int  # bytes; of a folder, those of all its files
    modified: int  # time of change in nanoseconds; of a folder, a hash of its files' names, sizes and times
    opened: str  # how the clip is opened, which determines its length and timing


class FeatureStore:
    """Keeps nothing: every request decodes and encodes again.

    `dtype` of kept features: "float16", "bfloat16" or "float32"; None for the model's own. Raises FeatureStoreError for
    any other.
    """

    def __init__(self, dtype: str | None = None) -> None:
        if dtype is not None and dtype not in DTYPES:
            choices = ", ".join(DTYPES)
            raise FeatureStoreError(f"features.dtype={dtype}: choose one of {choices}, or null to round nothing")
        self.dtype = dtype

    def dtype_of(self, source: FeatureSource) -> str | None:
        """The dtype that features of a source are kept in; None for their own."""
        return "float32" if source.exact else self.dtype

    def missing(self, clip: ClipKey, views: Sequence[View]) -> list[View]:
        """Views of a clip that are not kept, each once, in order. Reads no features."""
        return list(dict.fromkeys(views))

    def get(self, clip: ClipKey, views: Sequence[View]) -> dict[View, Tensor]:
        """Features [C + H*W, Dv] (CPU) of the views that are kept. Shared: do not change them."""
        return {}

    def put(self, clip: ClipKey, features: Mapping[View, Tensor]) -> dict[View, Tensor]:
        """Keep the features [C + H*W, Dv] (CPU) of views of one clip that were encoded together.

        Returns them in the store's dtype, to compute with. Raises FeatureStoreError and keeps nothing if a value is out
        of the dtype's range.
        """
        return round_features(features, self.dtype_of(clip.source))

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        """Content hash, length and timing of a clip that was opened before in this state, or None."""
        return None

    def remember(self, state: ClipState, content: str, info: ClipInfo) -> None:
        """Keep a clip's content hash, length and timing."""

    def finish(self) -> list[str]:
        """End a point: finish pending writes. Returns the failures since the last call, a line each."""
        return []


class MemoryStore(FeatureStore):
    """Keeps features in this process's memory, up to limit_bytes; the least recently used views go first."""

    def __init__(self, limit_bytes: int, dtype: str | None = None) -> None:
        super().__init__(dtype)
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._kept: OrderedDict[tuple[ClipKey, View], Tensor] = OrderedDict()
        self._clips: dict[ClipState, tuple[str, ClipInfo]] = {}

    def missing(self, clip: ClipKey, views: Sequence[View]) -> list[View]:
        kept = self.get(clip, views)
        return [view for view in dict.fromkeys(views) if view not in kept]

    def get(self, clip: ClipKey, views: Sequence[View]) -> dict[View, Tensor]:
        kept = {view: self._kept[clip, view] for view in views if (clip, view) in self._kept}
        for view in kept:
            self._kept.move_to_end((clip, view))
        return kept

    def put(self, clip: ClipKey, features: Mapping[View, Tensor]) -> dict[View, Tensor]:
        rounded = round_features(features, self.dtype_of(clip.source))
        for view, values in rounded.items():
            if values.nbytes > self.limit_bytes:
                continue
            if (clip, view) in self._kept:
                self.bytes -= self._kept.pop((clip, view)).nbytes
            self._kept[clip, view] = values.clone()  # a slice would keep its whole batch in memory
            self.bytes += values.nbytes
        while self.bytes > self.limit_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= dropped.nbytes
        return rounded

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        return self._clips.get(state)

    def remember(self, state: ClipState, content: str, info: ClipInfo) -> None:
        self._clips[state] = (content, info)
