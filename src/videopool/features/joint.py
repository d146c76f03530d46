"""Features of several sources side by side, kept each under its own source.

So what one job keeps of a layer serves every other job that needs this layer, alone or beside others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from videopool.features.source import ClipKey, FrameSource, View
from videopool.features.store import ClipState, FeatureStore
from videopool.video import ClipInfo


class JointStore(FeatureStore):
    """A store of features [C + H*W, D1 + D2 + ...], made of one store's [C + H*W, D1], [C + H*W, D2], ...

    A view is kept if all its parts are. The source in a clip's key is not looked at: the parts' count.

    Args:
        store: where the parts are kept.
        sources: of the parts, in their order; their widths are those of their shapes.
    """

    def __init__(self, store: FeatureStore, sources: Sequence[FrameSource]) -> None:
        self.store, self.sources = store, list(sources)
        self.dtype = store.dtype

    def _keys(self, clip: ClipKey) -> list[ClipKey]:
        return [replace(clip, source=source) for source in self.sources]

    def missing(self, clip: ClipKey, views: Sequence[View]) -> list[View]:
        lacking = set().union(*(self.store.missing(key, views) for key in self._keys(clip)))
        return [view for view in dict.fromkeys(views) if view in lacking]

    def get(self, clip: ClipKey, views: Sequence[View]) -> dict[View, Tensor]:
        parts = [self.store.get(key, views) for key in self._keys(clip)]
        return _joined(parts, [view for view in dict.fromkeys(views) if all(view in part for part in parts)])

    def put(self, clip: ClipKey, features: Mapping[View, Tensor]) -> dict[View, Tensor]:
        widths = [source.shape[1] for source in self.sources]
        split = {view: one.split(widths, dim=-1) for view, one in features.items()}
        parts = [
            self.store.put(key, {view: pieces[place].contiguous() for view, pieces in split.items()})
            for place, key in enumerate(self._keys(clip))
        ]
        return _joined(parts, list(features))

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        return self.store.clip(state)

    def remember(self, state: ClipState, content: str, info: ClipInfo) -> None:
        self.store.remember(state, content, info)

    def finish(self) -> list[str]:
        return self.store.finish()


def _joined(parts: Sequence[Mapping[View, Tensor]], views: Sequence[View]) -> dict[View, Tensor]:
    return {view: torch.cat([part[view] for part in parts], dim=-1) for view in views}
