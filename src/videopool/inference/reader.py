"""A model that is given clips as loader processes read them: features from the store, or encoded now."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from videopool.features import (
    ClipKey,
    FeatureStore,
    FrameSource,
    LoadedClip,
    LoadPlan,
    View,
    frames_of,
    in_order,
    read_again,
)
from videopool.models import Backbone, VideoLM
from videopool.models.stages import FRAME_TIMES, THUMBNAIL
from videopool.notes import note
from videopool.pooling import Pooling


class ClipReader(VideoLM):
    """A VideoLM that makes features of clips, each view once.

    Args:
        store: where features of frames are kept.
        plan: how clips are read.
        source: how features are made of them.

    Attributes:
        seconds: spent so far, by kind of work.
        frames: decoded so far, and frames whose features came from the store.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        stage: str,
        store: FeatureStore,
        plan: LoadPlan,
        source: FrameSource,
    ) -> None:
        super().__init__(backbone, pooling, stage)
        self.store = store
        self.plan = plan
        self.source = source
        self.seconds: dict[str, float] = defaultdict(float)
        self.frames = Counter(frames_decoded=0, frames_from_store=0)

    @contextmanager
    def clock(self, kind: str) -> Iterator[None]:
        """Add the time of a block to self.seconds."""
        started = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - started

    def transfer_batch_to_device(
        self, batch: Sequence[LoadedClip], device: torch.device, dataloader_idx: int
    ) -> Sequence[LoadedClip]:
        """Leave clips where they are: the backbone takes frames to its device a chunk at a time."""
        return batch

    def cpu(self) -> "ClipReader":
        """Leave the weights on their device when a point is done: the next point uses them there."""
        return self

    def features(self, clip: LoadedClip, source: FrameSource | None = None, plan: LoadPlan | None = None) -> Tensor:
        """Tower features [T, C + H*W, Dv] of a clip's views: kept ones, and new ones encoded now.

        They are in the model's dtype, on the CPU.

        Args:
            source, plan: of this clip, where they are not those of the others, as an image's.

        Raises:
            UnreadableClipError: kept views are gone, and the clip cannot be read again.
        """
        key = ClipKey(source or self.source, clip.digest)
        with self.clock("store"):
            if clip.state is not None and clip.info is not None:
                self.store.remember(clip.state, clip.digest, clip.info)
            found = self.store.get(key, clip.views)
        self.frames["frames_from_store"] += _frames(found)
        if clip.pixels is not None:
            self.frames["frames_decoded"] += _frames(clip.encoded)
            new = [place for place, view in enumerate(clip.encoded) if view not in found]
            if new:
                found |= self._encode(key, [clip.encoded[place] for place in new], clip.pixels[new])
        # What the store had when the clips were looked up may be damaged, or have made room for others.
        gone = in_order(set(clip.views) - found.keys())
        if gone:
            self.frames["frames_decoded"] += _frames(gone)
            found |= self._encode(key, gone, read_again(plan or self.plan, clip, gone, self.seconds))
        return torch.stack([found[view].to(self.backbone.dtype) for view in clip.views])

    def tokens_of(self, clips: Sequence[LoadedClip], features: Tensor, text: Tensor | None = None) -> Tensor:
        """What the language model reads of clips [B, N, D]; the pooling gets all of the context that it needs.

        Args:
            clips: of the rows.
            features: [B, V, C + H*W, Dv] of their views, as features() gives them.
            text: [B, D] a prompt a row, where the pooling needs it.
        """
        for clip in clips:
            frames = grid_frames_of(clip)
            assert features.shape[1] == frames + (THUMBNAIL in self.pooling.needs), f"{features.shape[1]} views"
        features = features.to(self.backbone.device)
        if FRAME_TIMES not in self.pooling.needs:
            return self.visual_tokens(features, text)
        # Clips differ in their times, and a pooling is given those of one.
        return torch.cat(
            [
                self.visual_tokens(features[[row]], None if text is None else text[[row]], self.frame_times(clip))
                for row, clip in enumerate(clips)
            ]
        )

    def frame_times(self, clip: LoadedClip) -> Tensor:
        """Seconds [T] of a clip's frames from its first one; of one image that is tiled of them, their mean."""
        times = torch.tensor(clip.times, dtype=torch.float64)
        times = times if grid_frames_of(clip) == len(times) else times.mean(0, keepdim=True)
        return times.float().to(self.backbone.device)

    def _encode(self, key: ClipKey, views: Sequence[View], pixels: Tensor) -> dict[View, Tensor]:
        """Features of views by their pixels [M, 3, S, S], kept, and rounded as the store rounds."""
        with self.clock("vision"):
            encoded = self.backbone.features(pixels, key.source.media).cpu()
        with self.clock("store"):
            return self.store.put(key, dict(zip(views, encoded, strict=True)))

    def on_predict_end(self) -> None:
        """Say what went wrong with the store."""
        with self.clock("store"):
            lines = self.store.finish()
        for line in lines:
            note(line, every_rank=True)


def grid_frames_of(clip: LoadedClip) -> int:
    """How many frames a clip's grid has: one, where its frames are tiled into an image."""
    return len(clip.indices) if isinstance(clip.views[0], int) else 1


def _frames(views: Iterable[View]) -> int:
    """How many frames some views of a clip show."""
    return len(set().union(*map(frames_of, views)))
