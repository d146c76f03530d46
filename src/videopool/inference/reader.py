"""A model that takes clips as loader processes read them: features from the store, or encoded now."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat

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
from videopool.models.backbone import VISION_CHUNK
from videopool.models.chunks import Chunk
from videopool.models.stages import FRAME_TIMES, THUMBNAIL
from videopool.notes import note
from videopool.pooling import Pooling
from videopool.runtime.interrupts import end_loaders_at_exit
from videopool.video import UnreadableClipError

Fresh = tuple[ClipKey, Sequence[View], Tensor]  # views of a clip, and their pixels [M, 3, S, S]
Made = dict[tuple[ClipKey, View], Tensor]  # features [C + H*W, Dv]


class ClipReader(VideoLM):
    """A VideoLM that makes features of clips, each view once. `source` is their key in the store.

    The tower takes up to `frames_at_once` frames of all clips in a call (None: VISION_CHUNK).
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        stage: str,
        store: FeatureStore,
        plan: ReadPlan,
        source: FeatureSource,
        frames_at_once: int | None = None,
    ) -> None:
        super().__init__(backbone, pooling, stage)
        self.at_once = Chunk(frames_at_once or VISION_CHUNK, "frames")
        self.store, self.plan, self.source = store, plan, source
        self.seconds: dict[str, float] = defaultdict(float)  # spent so far, by kind of work
        self.frames = Counter(frames_decoded=0, frames_from_store=0)  # so far

    @contextmanager
    def clock(self, kind: str) -> Iterator[None]:
        """Add the time of a block to self.seconds."""
        started = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - started

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            end_loaders_at_exit()

    def transfer_batch_to_device(
        self, batch: Sequence[LoadedClip], device: torch.device, dataloader_idx: int
    ) -> Sequence[LoadedClip]:
        """Leave clips where they are: the backbone takes frames to its device a chunk at a time."""
        return batch

    def cpu(self) -> "ClipReader":
        """Leave the weights on their device after a point: the next point uses them there."""
        return self

    def read(
        self, clips: Sequence[LoadedClip], sources: Sequence[FeatureSource] = (), plans: Sequence[ReadPlan] = ()
    ) -> list[tuple[Tensor | None, str]]:
        """Each clip's tower features, or why there are none. Adds the seconds that loaders spent.

        Features are [T, C + H*W, Dv] of a clip's views, in the model's dtype on the CPU; new ones are encoded now,
        several clips in one call of the tower. Sources and plans are by clip, as images have their own.
        """
        keys = [ClipKey(own, clip.digest) for clip, own in zip(clips, sources or repeat(self.source), strict=False)]
        found: list[dict[View, Tensor]] = []
        reasons, fresh, lost = [clip.error for clip in clips], list[Fresh](), list[Fresh]()
        queued: set[tuple[ClipKey, View]] = set()  # two stretches of a clip may share frames
        for clip, key in zip(clips, keys, strict=True):
            for kind, spent in clip.seconds.items():
                self.seconds[kind] += spent
            found.append({} if clip.error else self._stored(clip, key))
            if clip.pixels is not None and not clip.error:
                self.frames["frames_decoded"] += _frames(clip.encoded)
                new = [i for i, view in enumerate(clip.encoded) if view not in found[-1] and (key, view) not in queued]
                if new:
                    pixels = clip.pixels if len(new) == len(clip.pixels) else clip.pixels[new]
                    fresh.append((key, [clip.encoded[i] for i in new], pixels))
                    queued |= {(key, view) for view in fresh[-1][1]}
        made = self._encode(fresh)
        for place, (clip, plan) in enumerate(zip(clips, plans or repeat(self.plan), strict=False)):
            # The store may since have found views damaged, or dropped them for others.
            here = found[place].keys() | {view for key, view in made if key == keys[place]}
            if (gone := in_order(set(clip.views) - here)) and not clip.error:
                self.frames["frames_decoded"] += _frames(gone)
                try:
                    lost.append((keys[place], gone, read_again(plan, clip, gone, self.seconds)))
                except UnreadableClipError as error:
                    reasons[place] = str(error)
        made |= self._encode(lost)
        outcomes: list[tuple[Tensor | None, str]] = []
        for clip, key, own, reason in zip(clips, keys, found, reasons, strict=True):
            features = {view: made[key, view] for view in clip.views if (key, view) in made} | own
            views = [] if reason else [features[view].to(self.backbone.dtype) for view in clip.views]
            outcomes.append((torch.stack(views) if views else None, reason))
        return outcomes

    def _stored(self, clip: LoadedClip, key: ClipKey) -> dict[View, Tensor]:
        """The features that the store has."""
        with self.clock("store"):
            if clip.state is not None and clip.info is not None:
                self.store.remember(clip.state, clip.digest, clip.info)
            features = self.store.get(key, clip.views)
        self.frames["frames_from_store"] += _frames(features)
        return features

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

    def _encode(self, fresh: Sequence[Fresh]) -> Made:
        """Features of views from their pixels, stored, and rounded as the store rounds."""
        encoded = self.tower([(key.source.media, pixels) for key, _, pixels in fresh])
        with self.clock("store"):
            return stored(self.store, fresh, encoded)

    def tower(self, pixels: Sequence[tuple[str, Tensor]], layers: Sequence[int] | None = None) -> list[list[Tensor]]:
        """Features [C + H*W, Dv] (CPU) of each frame, from media and pixels [M, 3, S, S] of several clips."""
        if not pixels:
            return []
        by_media: dict[str, list[Tensor]] = defaultdict(list)
        for media, own in pixels:
            by_media[media] += own
        with self.clock("vision"):
            encoded = {
                media: chain.from_iterable(
                    self.at_once.each(frames, partial(self._encoded, media=media, layers=layers))
                )
                for media, frames in by_media.items()
            }
            found = [list(islice(encoded[media], len(own))) for media, own in pixels]
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()  # once, for the copies of all chunks
        return found

    def _encoded(self, frames: Sequence[Tensor], media: str, layers: Sequence[int] | None) -> Sequence[Tensor]:
        """The features of frames [3, S, S] in one call, on their way to the CPU."""
        return self.backbone.encode_at_once(frames, media, layers).to("cpu", non_blocking=True).unbind()

    def on_predict_end(self) -> None:
        """Report problems of the store."""
        with self.clock("store"):
            lines = self.store.finish()
        for line in lines:
            note(line, every_rank=True)


def stored(store: FeatureStore, fresh: Sequence[Fresh], encoded: Sequence[Sequence[Tensor]]) -> Made:
    """Features of fresh views as a store returns them."""
    made: Made = {}
    for (key, views, _), own in zip(fresh, encoded, strict=True):
        made |= {(key, view): kept for view, kept in store.put(key, dict(zip(views, own, strict=True))).items()}
    return made


def grid_frames_of(clip: LoadedClip) -> int:
    """Number of frames in a clip's grid: one, where its frames are tiled into an image."""
    return len(clip.indices) if isinstance(clip.views[0], int) else 1


def _frames(views: Iterable[View]) -> int:
    """Number of frames that some views of a clip show."""
    return len(set().union(*map(frames_of, views)))
