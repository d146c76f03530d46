"""A model that takes clips as loader processes read them: features from the store, or encoded now."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from videopool.features import (
    ClipKey,
    FeatureSource,
    FeatureStore,
    LoadedClip,
    ReadPlan,
    View,
    frames_of,
    in_order,
    read_again,
)
from videopool.models import Backbone, VideoLM
from videopool.models.stages import FRAME_TIMES, THUMBNAIL
from videopool.notes import note
from videopool.pooling import Pooling
from videopool.video import UnreadableClipError


class ClipReader(VideoLM):
    """A VideoLM that makes features of clips, each view once. `source` is their key in the store."""

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        stage: str,
        store: FeatureStore,
        plan: ReadPlan,
        source: FeatureSource,
    ) -> None:
        super().__init__(backbone, pooling, stage)
        self.store, self.plan, self.source = store, plan, source
        self.seconds: dict[str, float] = defaultdict(float)  # spent so far, by kind of work
        self.frames = Counter(frames_decoded=0, frames_from_store=0)  # so far

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
        """Leave the weights on their device after a point: the next point uses them there."""
        return self

    def read(
        self, clip: LoadedClip, source: FeatureSource | None = None, plan: ReadPlan | None = None
    ) -> tuple[Tensor | None, str]:
        """The clip's features, or why there are none. Adds the seconds that its loader spent."""
        for kind, spent in clip.seconds.items():
            self.seconds[kind] += spent
        try:
            return (None, clip.error) if clip.error else (self.features(clip, source, plan), "")
        except UnreadableClipError as error:
            return None, str(error)

    def features(self, clip: LoadedClip, source: FeatureSource | None = None, plan: ReadPlan | None = None) -> Tensor:
        """Tower features [T, C + H*W, Dv] of a clip's views, in the model's dtype on the CPU; new ones are encoded now.

        An image has its own source and plan. Raises UnreadableClipError if stored views are gone, and the clip too.
        """
        key = ClipKey(source or self.source, clip.digest)
        with self.clock("store"):
            if clip.state is not None and clip.info is not None:
                self.store.remember(clip.state, clip.digest, clip.info)
            features = self.store.get(key, clip.views)
        self.frames["frames_from_store"] += _frames(features)
        if clip.pixels is not None:
            self.frames["frames_decoded"] += _frames(clip.encoded)
            new = [place for place, view in enumerate(clip.encoded) if view not in features]
            if new:
                features |= self._encode(key, [clip.encoded[place] for place in new], clip.pixels[new])
        # The store may since have found views damaged, or dropped them for others.
        gone = in_order(set(clip.views) - features.keys())
        if gone:
            self.frames["frames_decoded"] += _frames(gone)
            features |= self._encode(key, gone, read_again(plan or self.plan, clip, gone, self.seconds))
        return torch.stack([features[view].to(self.backbone.dtype) for view in clip.views])

    def tokens_of(self, clips: Sequence[LoadedClip], features: Tensor, text: Tensor | None = None) -> Tensor:
        """Visual tokens [B, N, D] from the features [B, V, C + H*W, Dv] of clips' views; text [B, D]: their prompts."""
        for clip in clips:
            views = grid_frames_of(clip) + (THUMBNAIL in self.pooling.needs)
            assert features.shape[1] == views, f"{features.shape[1]} views"
        features = features.to(self.backbone.device)
        if FRAME_TIMES not in self.pooling.needs:
            return self.visual_tokens(features, text)
        # Clips differ in their times, and a pooling takes those of one.
        rows = [
            self.visual_tokens(features[[row]], None if text is None else text[[row]], self.frame_times(clip))
            for row, clip in enumerate(clips)
        ]
        return torch.cat(rows)

    def frame_times(self, clip: LoadedClip) -> Tensor:
        """Seconds [T] of a clip's frames from its first one; for an image that tiles them, their mean."""
        times = torch.tensor(clip.times, dtype=torch.float64)
        times = times if grid_frames_of(clip) == len(times) else times.mean(0, keepdim=True)
        return times.float().to(self.backbone.device)

    def _encode(self, key: ClipKey, views: Sequence[View], pixels: Tensor) -> dict[View, Tensor]:
        """Features of views from their pixels [M, 3, S, S], stored, and rounded as the store rounds."""
        with self.clock("vision"):
            encoded = self.backbone.features(pixels, key.source.media).cpu()
        with self.clock("store"):
            return self.store.put(key, dict(zip(views, encoded, strict=True)))

    def on_predict_end(self) -> None:
        """Report problems of the store."""
        with self.clock("store"):
            lines = self.store.finish()
        for line in lines:
            note(line, every_rank=True)


def grid_frames_of(clip: LoadedClip) -> int:
    """Number of frames in a clip's grid: one, where its frames are tiled into an image."""
    return len(clip.indices) if isinstance(clip.views[0], int) else 1


def _frames(views: Iterable[View]) -> int:
    """Number of frames that some views of a clip show."""
    return len(set().union(*map(frames_of, views)))
