"""Features in the memory of one process."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor

from videopool.features.rounding import check_dtype, round_features
from videopool.features.source import ClipKey, View
from videopool.features.store import ClipState, FeatureStore
from videopool.video import ClipInfo


class MemoryStore(FeatureStore):
    """Keeps features in this process's memory; views that were used least recently go first.

    Args:
        limit_bytes: of all features together.
        dtype: "float16", "bfloat16" or "float32"; None to keep the model's own.

    Raises:
        FeatureStoreError: no such dtype.
    """

    def __init__(self, limit_bytes: int, dtype: str | None = None) -> None:
        self.dtype = check_dtype(dtype)
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._kept: OrderedDict[tuple[ClipKey, View], Tensor] = OrderedDict()
        self._clips: dict[ClipState, tuple[str, ClipInfo]] = {}

    def missing(self, clip: ClipKey, views: Sequence[View]) -> list[View]:
        return [view for view in dict.fromkeys(views) if self._use(clip, view) is None]

    def get(self, clip: ClipKey, views: Sequence[View]) -> dict[View, Tensor]:
        found = {view: self._use(clip, view) for view in views}
        return {view: features for view, features in found.items() if features is not None}

    def _use(self, clip: ClipKey, view: View) -> Tensor | None:
        features = self._kept.get((clip, view))
        if features is not None:
            self._kept.move_to_end((clip, view))
        return features

    def put(self, clip: ClipKey, features: Mapping[View, Tensor]) -> dict[View, Tensor]:
        rounded = round_features(features, self.dtype)
        for view, one in rounded.items():
            if one.nbytes > self.limit_bytes:
                continue
            if (clip, view) in self._kept:
                self.bytes -= self._kept.pop((clip, view)).nbytes
            self._kept[clip, view] = one.clone()  # a slice would keep all that was encoded with it
            self.bytes += one.nbytes
        while self.bytes > self.limit_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= dropped.nbytes
        return rounded

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        return self._clips.get(state)

    def remember(self, state: ClipState, content: str, info: ClipInfo) -> None:
        self._clips[state] = (content, info)
