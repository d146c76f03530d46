"""A model that takes clips as loader processes read them: features from the store, or encoded now."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice

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
from videopool.models import Backbone
from videopool.models.backbone import VISION_CHUNK
from videopool.models.stages import FRAME_TIMES, THUMBNAIL
from videopool.models.texts import FRAMES, Stamps
from videopool.models.tower_outputs import TowerOutput
from videopool.notes import note
from videopool.pooling import Pooling, PoolingContext
from videopool.pooling.base import TOWER
from videopool.reading.chunks import Chunk
from videopool.reading.layout import Arranged
from videopool.reading.module import VideoLM
from videopool.video import UnreadableClipError

Fresh = tuple[ClipKey, Sequence[View], Tensor]  # views of a clip, and their pixels [M, 3, S, S]
Call = tuple[str, tuple[TowerOutput, ...], tuple[int, ...]]
Made = dict[tuple[ClipKey, View], Tensor]  # features [C + H*W, Dv], or what is beside them


class ClipReader(VideoLM):
    """A VideoLM that makes features of clips, each view once. `source` is their key in the store.

    The tower takes up to `frames_at_once` frames of all clips in a call (None: VISION_CHUNK). Layout and `original` are
    VideoLM's.
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
        layout: str = FRAMES,
        original: bool = False,
    ) -> None:
        super().__init__(backbone, pooling, stage, layout, original)
        self.at_once = Chunk(frames_at_once or VISION_CHUNK, "frames")
        self.store, self.plan, self.source = store, plan, source
        self.seconds: dict[str, float] = defaultdict(float)  # spent so far, by kind of work
        self.frames = Counter(frames_decoded=0, frames_from_store=0)  # so far

    @contextmanager
    def clock(self, kind: str, exact: bool = False) -> Iterator[None]:
        """Add the time of a block to self.seconds, without that of blocks inside it; exact: with the device's work."""
        wait = exact and torch.accelerator.is_available() and self.backbone.device.type != "cpu"
        if wait:
            torch.accelerator.synchronize()
        before, started = sum(self.seconds.values()), time.perf_counter()
        yield
        if wait:
            torch.accelerator.synchronize()
        inside = sum(self.seconds.values()) - before
        self.seconds[kind] += time.perf_counter() - started - inside

    def pooled(self, grid: Tensor, context: PoolingContext) -> Tensor:
        with self.clock("pool"):
            return super().pooled(grid, context)

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
        several clips in one call of the tower. What is beside them goes to clip.beside. Sources and plans are by clip,
        as images have their own.
        """
        own_sources = sources or [self.source] * len(clips)
        keys = [ClipKey(source, clip.digest) for clip, source in zip(clips, own_sources, strict=True)]
        made: Made = {}
        reasons, fresh, lost = [clip.error for clip in clips], list[Fresh](), list[Fresh]()
        queued: set[tuple[ClipKey, View]] = set()  # two stretches of a clip may share frames
        for clip, key in zip(clips, keys, strict=True):
            for kind, spent in clip.seconds.items():
                self.seconds[kind] += spent
            if clip.error:
                continue
            self._get(clip, key, made)
            if clip.pixels is not None:
                self.frames["frames_decoded"] += _frames(clip.encoded)
                lacking = set(clip.encoded) - _whole(key, clip.encoded, made)
                new = [i for i, view in enumerate(clip.encoded) if view in lacking and (key, view) not in queued]
                if new:
                    pixels = clip.pixels if len(new) == len(clip.pixels) else clip.pixels[new]
                    fresh.append((key, [clip.encoded[i] for i in new], pixels))
                    queued |= {(key, view) for view in fresh[-1][1]}
        self._encode(fresh, made)
        for place, (clip, key, plan) in enumerate(zip(clips, keys, plans or [self.plan] * len(clips), strict=True)):
            # The store may since have found views damaged, or dropped them for others.
            gone = in_order(set(clip.views) - _whole(key, clip.views, made))
            if gone and not clip.error:
                self.frames["frames_decoded"] += _frames(gone)
                try:
                    lost.append((key, gone, read_again(plan, clip, gone, self.seconds)))
                except UnreadableClipError as error:
                    reasons[place] = str(error)
        self._encode(lost, made)
        return [
            (None, reason) if reason else (self._stacked(clip, key, made), "")
            for clip, key, reason in zip(clips, keys, reasons, strict=True)
        ]

    def _get(self, clip: LoadedClip, key: ClipKey, made: Made) -> None:
        """Add what the store has of a clip."""
        with self.clock("store"):
            if clip.state is not None and clip.info is not None:
                self.store.remember(clip.state, clip.digest, clip.info)
            for part in _parts(key):
                made |= {(part, view): own for view, own in self.store.get(part, clip.views).items()}
        self.frames["frames_from_store"] += _frames(_whole(key, clip.views, made))

    def _stacked(self, clip: LoadedClip, key: ClipKey, made: Made) -> Tensor:
        """The features of a clip's views; sets clip.beside."""
        features, *beside = ([made[part, view] for view in clip.views] for part in _parts(key))
        clip.beside = {name: torch.stack(own) for name, own in zip(key.source.beside, beside, strict=True)}
        return torch.stack([own.to(self.backbone.dtype) for own in features])

    def grid_size(self, features: Tensor) -> tuple[int, int, int]:
        """Size (T, H, W) of the grid of a clip's frames, features [T, C + H*W, Dv] or, by clip, [T, h, w, Dv]."""
        frames, height, width = self.backbone.grid(features).shape[:3]
        return frames, height, width

    def tokens_of(self, clips: Sequence[LoadedClip], features: Tensor, text: Tensor | None = None) -> Arranged:
        """Visual tokens from the features [B, V, C + H*W, Dv] of clips' views; text [B, D]: their prompts."""
        with self.clock("project"):
            return self._tokens_of(clips, features, text)

    def _tokens_of(self, clips: Sequence[LoadedClip], features: Tensor, text: Tensor | None) -> Arranged:
        for clip in clips:
            views = clip.moments + (THUMBNAIL in self.pooling.needs)
            assert features.shape[1] == views, f"{features.shape[1]} views"
        features = features.to(self.backbone.device)
        beside = {name: torch.stack([clip.beside[name] for clip in clips]) for name in self.pooling.needs & set(TOWER)}
        stamps = [self.stamps(clip) for clip in clips]
        if FRAME_TIMES not in self.pooling.needs:
            return self.arranged(features, text, None, beside, stamps)
        # Clips differ in their times, and a pooling takes those of one.
        rows = [
            self.arranged(
                features[[row]],
                None if text is None else text[[row]],
                self.frame_times(clip),
                {name: values[[row]] for name, values in beside.items()},
                stamps[row : row + 1],
            )
            for row, clip in enumerate(clips)
        ]
        return Arranged.joined(rows)

    def _times(self, clip: LoadedClip) -> Tensor:
        """Seconds [T] of the moments of a clip's grid from its first frame: the mean of the frames of each."""
        times = torch.tensor(clip.times, dtype=torch.float64)
        if clip.moments == 1:
            return times.mean(0, keepdim=True)
        return torch.stack([part.mean() for part in times.split(-(-len(times) // clip.moments))])

    def stamps(self, clip: LoadedClip) -> Stamps:
        """When the frames of a clip's grid are shown."""
        return Stamps(self._times(clip).tolist(), clip.duration, clip.still)

    def frame_times(self, clip: LoadedClip) -> Tensor:
        """The same as float32 on the backbone's device."""
        return self._times(clip).float().to(self.backbone.device)

    def _encode(self, fresh: Sequence[Fresh], made: Made) -> None:
        """Add what fresh views lack, stored, and rounded as the store rounds."""
        if not fresh:
            return
        lacking: list[list[ClipKey]] = []
        calls: dict[Call, list[Tensor]] = defaultdict(list)  # frames, by what they need
        for key, views, pixels in fresh:
            lacking.append([part for part in _parts(key) if any((part, view) not in made for view in views)])
            calls[self._call(key, lacking[-1], pixels)] += pixels
        with self.clock("vision"):
            encoded = {
                call: chain.from_iterable(
                    self.at_once.each(frames, partial(self._encoded, media=call[0], outputs=call[1]))
                )
                for call, frames in calls.items()
            }
            found = [
                list(islice(encoded[self._call(key, parts, pixels)], len(views)))
                for (key, views, pixels), parts in zip(fresh, lacking, strict=True)
            ]
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()  # once, for the copies of all chunks
        with self.clock("store"):
            for (_, views, _), parts, frames in zip(fresh, lacking, found, strict=True):
                for place, part in enumerate(parts):
                    new = {
                        view: own[place] for view, own in zip(views, frames, strict=True) if (part, view) not in made
                    }
                    made |= {(part, view): kept for view, kept in self.store.put(part, new).items()}

    def _call(self, key: ClipKey, parts: Sequence[ClipKey], pixels: Tensor) -> Call:
        """What the frames of one call of the tower have in common: medium, wanted outputs, size."""
        return key.source.media, self._outputs(key, parts), tuple(pixels.shape[1:])

    def _outputs(self, key: ClipKey, parts: Sequence[ClipKey]) -> tuple[TowerOutput, ...]:
        """The tower's outputs that some parts of a clip are."""
        outputs = [self.backbone.feature_states, *(output for _, output in key.source.beside.values())]
        return tuple(own for part, own in zip(_parts(key), outputs, strict=True) if part in parts)

    def _encoded(
        self, frames: Sequence[Tensor], media: str, outputs: Sequence[TowerOutput]
    ) -> Iterable[Sequence[Tensor]]:
        """The outputs for each of some frames [3, S, S] in one call, on their way to the CPU."""
        made = self.backbone.encode_at_once(frames, media, outputs, partial(self.clock, "saliency", exact=True))
        return zip(*(values.to("cpu", non_blocking=True) for values in made), strict=True)

    def on_predict_end(self) -> None:
        """Report problems of the store."""
        with self.clock("store"):
            lines = self.store.finish()
        for line in lines:
            note(line, every_rank=True)


def _parts(key: ClipKey) -> list[ClipKey]:
    """A clip's features, and what is beside them."""
    return [replace(key, source=one) for one in key.source.all]


def _whole(key: ClipKey, views: Iterable[View], made: Made) -> set[View]:
    """The views that lack nothing."""
    return {view for view in views if all((part, view) in made for part in _parts(key))}


def _frames(views: Iterable[View]) -> int:
    """Number of frames that some views of a clip show."""
    return len(set().union(*map(frames_of, views)))
