"""Measuring through the LightningModule: clips in, norms added to what was measured before."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videopool.benchmarks import Prompt
from videopool.features import ClipKey, FeatureStore, FrameSource, JointStore, LoadedClip, LoadPlan, View
from videopool.inference.reader import ClipReader
from videopool.measuring.settings import NormSettings, clip_name
from videopool.measuring.stages import ENCODER, LLM, POOLED, PROJECTOR
from videopool.models import Backbone
from videopool.models.reading import llm_states
from videopool.models.stages import TEXT, THUMBNAIL
from videopool.norms import Measurement, StageNorms, token_norms
from videopool.norms.places import as_feature, patch_texture
from videopool.norms.saved import Progress, save_partial
from videopool.pooling import GridPooling, Pooling
from videopool.video import UnreadableClipError

TEXTURE = "patch texture"  # the layer of the source under which it is kept


class Parts:
    """What a clip's features consist of: the tower's feature layers, other layers, texture.

    Args:
        store: where each is kept, under its own source.
        source: of the tower's feature layers.
        backbone: the model.
        settings: which other parts there are.
    """

    def __init__(self, store: FeatureStore, source: FrameSource, backbone: Backbone, settings: NormSettings) -> None:
        depth, positions = backbone.shape.vision_layers, source.shape[0]
        layer = backbone.model.config.vision_feature_layer
        own = [layer] if isinstance(layer, int) else list(layer)
        self.feature_layers = [number if number >= 0 else depth + 1 + number for number in own]
        sources = [source]
        self.places: dict[int | None, int] = {None: 0}  # of layers among the sources; None: the feature layers
        for number in settings.tower_layers:
            if [number] == self.feature_layers:
                self.places[number] = 0
                continue
            self.places[number] = len(sources)
            # Named as a configuration would, so that points with this feature layer share it.
            name = str(number - depth - 1)
            sources.append(replace(source, layer=name, shape=(positions, backbone.shape.tower_dim)))
        self.other_layers = [number for number, place in self.places.items() if number is not None and place]
        self.tower = JointStore(store, sources)
        self.texture = None
        if settings.texture:
            self.texture = JointStore(store, [replace(source, layer=TEXTURE, shape=(positions, 1))])
        self.all = JointStore(store, [*sources, *(self.texture.sources if self.texture else ())])

    def split(self, features: Tensor) -> list[Tensor]:
        """Features [..., D1 + D2 + ...] to those of each source."""
        return list(features.split([source.shape[1] for source in self.all.sources], dim=-1))


class NormMeter(ClipReader):
    """A VideoLM that measures norms, clip by clip.

    Args:
        parts: what features consist of.
        prompt: conversation template, for the language model's stages.
        settings: what is measured.
        measured: what clips are added to.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        stage: str,
        plan: LoadPlan,
        parts: Parts,
        prompt: Prompt,
        settings: NormSettings,
        measured: Measurement,
    ) -> None:
        super().__init__(backbone, pooling, stage, parts.all, plan, parts.tower.sources[0])
        self.parts, self.prompt, self.settings, self.measured = parts, prompt, settings, measured

    def _encode(self, key: ClipKey, views: Sequence[View], pixels: Tensor) -> dict[View, Tensor]:
        parts = self.parts
        with self.clock("store"):
            found = parts.tower.get(key, views)
        new = [place for place, view in enumerate(views) if view not in found]  # others lack their texture only
        if new:
            with self.clock("vision"):
                layers = [*parts.feature_layers, *parts.other_layers]
                encoded = self.backbone.features(pixels[new], layers=layers).cpu()
            with self.clock("store"):
                found |= parts.tower.put(key, {views[i]: one for i, one in zip(new, encoded, strict=True)})
        if parts.texture is None:
            return found
        with self.clock("texture"):
            texture = patch_texture(pixels, self.backbone.shape.patch).to(self.backbone.dtype)
            made = as_feature(texture, self.backbone.extra)
        with self.clock("store"):
            kept = parts.texture.put(key, dict(zip(views, made, strict=True)))
        return {view: torch.cat([found[view], kept[view]], dim=-1) for view in views}

    @torch.inference_mode()
    def predict_step(self, batch: Sequence[LoadedClip], batch_idx: int = 0) -> list[tuple[str, str, str]]:
        """Add clips; name and content of each, and why it could not be used, "" where it could."""
        outcomes = []
        for clip in batch:
            for kind, spent in clip.seconds.items():
                self.seconds[kind] += spent
            reason = ""
            try:
                if clip.error:
                    raise UnreadableClipError(clip.job.clip, clip.error)
                features = self.features(clip)
            except UnreadableClipError as error:
                reason = clip.error or str(error)
            else:
                self._measure(clip, features)
            outcomes.append((clip_name(clip.job), clip.digest, reason))
        return outcomes

    def _measure(self, clip: LoadedClip, features: Tensor) -> None:
        """Add one clip; features [T, C + H*W, D1 + D2 + ...]."""
        backbone, settings, measured = self.backbone, self.settings, self.measured
        pieces = self.parts.split(features)
        read = pieces[0].to(backbone.device)
        # An image tiled of frames that stands behind them is not one of them; alone, it is what is measured.
        frames = [place for place, view in enumerate(clip.views) if isinstance(view, int)] or [0]
        texture = None
        if self.parts.texture is not None:
            texture = backbone.grid(pieces[-1])[frames, ..., 0].float().numpy()
        for stage in settings.stages:
            if stage.kind == ENCODER:
                layer = pieces[self.parts.places[stage.layer]][frames].to(backbone.device)
                self._add(stage.name, backbone.grid(layer), texture)
            elif stage.kind == PROJECTOR:
                with self.clock("project"):
                    projected = backbone.project(backbone.grid(read[frames]))
                self._add(stage.name, projected, texture)
        wanted = {stage.kind for stage in settings.stages}
        if not settings.attention_layers and not wanted & {POOLED, LLM}:
            return
        with self.clock("pool"):
            tokens = self.tokens_of([clip], read[None], self._question(clip))
        count = tokens.shape[1] - backbone.shape.separators
        cells = self._cells(len(read) - (THUMBNAIL in self.pooling.needs), count)
        pooled = measured.stages.get(POOLED) or StageNorms(settings.p, settings.rules)
        with self.clock("norms"):
            seen = pooled.add(tokens[0, :count].unflatten(0, cells), texture)
        if not settings.llm_layers:
            return
        before, after = self._prompt(clip)
        with self.clock("language model"):
            whole = [before, tokens.to(backbone.device, backbone.dtype)]
            whole += [after] if settings.attention_layers else []
            states, looks = llm_states(
                backbone, torch.cat(whole, dim=1), settings.llm_layers, settings.attention_layers
            )
        place = slice(before.shape[1], before.shape[1] + count)
        for stage in settings.stages:
            if stage.kind == LLM:
                self._add(stage.name, states[stage.layer or 0][0, place].unflatten(0, cells), texture)
        for number, look in looks.items():
            entering = token_norms(states[number - 1][0, place], settings.p).cpu().double().numpy()
            measured.attention[number].add(look[0, place].double().cpu().numpy(), seen, entering)

    def _add(self, stage: str, tokens: Tensor, texture: np.ndarray | None) -> None:
        with self.clock("norms"):
            self.measured.stages[stage].add(tokens, texture)

    def _cells(self, frames: int, count: int) -> tuple[int, ...]:
        """The grid (T', H', W') whose cells the pooled tokens are; (count,) if they are not those of a grid."""
        if not isinstance(self.pooling, GridPooling):
            return (count,)
        return self.pooling.out_shape(frames, self.backbone.shape.height, self.backbone.shape.width)

    def _question(self, clip: LoadedClip) -> Tensor | None:
        """The clip's first question as a vector [1, D], for a pooling that needs it."""
        if TEXT not in self.pooling.needs:
            return None
        return self.backbone.text_vector(clip.job.samples[0].question or self.prompt.describe)[None]

    def _prompt(self, clip: LoadedClip) -> tuple[Tensor, Tensor]:
        """Embeddings [1, L, D] of the text before and after the visual tokens; the clip's first question counts."""
        backbone, sample = self.backbone, clip.job.samples[0]
        text = self.prompt.text(sample.question or self.prompt.describe, sample.options, backbone.image_token)
        before, after = (
            backbone.embed(torch.tensor([ids], dtype=torch.long, device=backbone.device))
            for ids in backbone.split_prompt(text)
        )
        return before, after


class NormLog:
    """Keeps what was measured so far, every so many clips.

    Args:
        folder: of the point.
        measured: what the meter adds to.
        progress: which clips it holds.
        every: clips between two writings: what a kill costs at most.
    """

    def __init__(self, folder: Path, measured: Measurement, progress: Progress, every: int) -> None:
        self.path = folder / "norms"  # the point's folder is what the progress bar shows
        self.measured, self.progress, self.every = measured, progress, every
        self._fresh = 0

    def append(self, outcomes: Sequence[tuple[str, str, str]]) -> None:
        """Note clips that the meter is through with."""
        for name, content, reason in outcomes:
            if reason:
                self.progress.failed[name] = reason
            else:
                self.progress.done[name] = content
        self._fresh += len(outcomes)
        if self._fresh >= self.every:
            self.save()

    def save(self) -> None:
        """Write all so far. Raises NormsError if it cannot be written."""
        save_partial(self.path.parent, self.measured, self.progress)
        self._fresh = 0
