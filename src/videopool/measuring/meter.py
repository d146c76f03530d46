"""Measure norms with a LightningModule, clip by clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videopool.features import FeatureSource, LoadedClip, ReadPlan
from videopool.inference.reader import ClipReader
from videopool.measuring.neurons import outlier_neurons
from videopool.measuring.settings import NormSettings, clip_name
from videopool.measuring.stages import ENCODER, LLM, POOLED, PROJECTOR, TowerScore
from videopool.models import Backbone
from videopool.models.stages import TEXT
from videopool.models.tower_outputs import LayerStates, Pass, TowerOutput, score_output, tower_outputs
from videopool.norms import ClipNorms, Measurement, StageNorms, nearest, token_norms
from videopool.norms.overlap import FATES
from videopool.norms.saved import MeasuredSoFar, save_partial
from videopool.norms.stage import Placed
from videopool.norms.token_norms import as_feature, patch_texture
from videopool.norms.vocabulary import unit
from videopool.points.point import Point
from videopool.pooling import GridPooling, Pooling, PoolingContext, PoolingShapeError, announced
from videopool.pooling.tracing import PatchTrace
from videopool.reading.answers import llm_states
from videopool.reading.layout import beside

TEXTURE, NEURONS = "patch texture", "outlier neurons"


@dataclass(frozen=True)
class Texture(TowerOutput):
    """Texture of patches of so many pixels on a side; `extra` rows before them stand for the CLS token."""

    patch: int = 1
    extra: int = 0

    def of(self, seen: Pass) -> Tensor:
        texture = patch_texture(seen.pixels, self.patch).to(next(seen.tower.parameters()).dtype)
        return as_feature(texture, self.extra)


def norm_outputs(backbone: Backbone, pooling: Pooling, settings: NormSettings) -> dict[str, TowerOutput]:
    """What a measurement reads of the tower beside its features: other layers, texture, what the pooling needs."""
    shape, own = backbone.shape, backbone.feature_states
    rows = own.size[0]
    # Layers are named as in a configuration, so that points with such a feature layer share them.
    layers = {
        f"layer {layer}": LayerStates(str(layer - shape.vision_layers - 1), (rows, shape.tower_dim), (layer,))
        for layer in settings.tower_layers
        if (layer,) != own.layers
    }
    patches = Texture(TEXTURE, (rows, 1), (), patch=shape.patch, extra=backbone.extra)
    texture = {TEXTURE: patches} if settings.texture else {}
    scores = {_score_key(score): score_output(score.kind, score.block, shape) for score in settings.scores}
    neurons = {NEURONS: outlier_neurons(shape, settings.rules.times_median)} if settings.register_neurons else {}
    return {**layers, **texture, **scores, **neurons, **tower_outputs(pooling, shape, backbone.name)}


def _score_key(score: TowerScore) -> str:
    return f"score {score.name}"


def fates_of(pooling: Pooling, grid: Tensor, context: PoolingContext) -> np.ndarray:
    """The number in FATES of each patch of a grid [1, T, H, W, D], flat.

    Kept: a token has its place, alone or as the anchor of others, or is made of it alone. Merged: it is in a token
    otherwise. Raises PoolingContractError if the tokens cannot be traced to patches.
    """
    count = grid[0, ..., 0].numel()
    places = pooling.token_places(grid, context)
    if places is not None and not places.shape[1]:
        return np.zeros(count, int)
    with torch.inference_mode(False):
        own = {field.name: getattr(context, field.name) for field in fields(context)}
        plain = {name: None if value is None else value.clone() for name, value in own.items()}
        trace = PatchTrace(pooling, grid.clone(), PoolingContext(**plain))
        read = trace.of_patches(torch.ones(len(trace.tokens), 1, device=grid.device))[..., 0].flatten().isfinite()
        if places is None:
            places = trace.alone()[None]
    fates = np.where(read.cpu().numpy(), FATES.index("merged"), FATES.index("dropped"))
    kept = places[0].cpu().numpy()
    fates[kept[kept >= 0]] = FATES.index("kept")
    return fates


class NormMeter(ClipReader):
    """A VideoLM that adds clips to a measurement."""

    def __init__(
        self,
        backbone: Backbone,
        point: Point,
        plan: ReadPlan,
        source: FeatureSource,
        settings: NormSettings,
        into: Measurement,
        tasks: Mapping[str, Sequence[str]],
    ) -> None:
        """tasks: kinds of questions about a clip, by clip_name()."""
        frames = point.config.features.get("frames_at_once")
        super().__init__(backbone, point.pooling, point.stage, point.store, plan, source, frames, point.layout)
        self.prompt, self.settings, self.measured = point.prompt, settings, into
        self.tasks = tasks
        self.placed: Placed | None = None  # tokens of the last clip, of a pooling to tokens with places
        self.fates: np.ndarray | None = None  # of the last clip's patches [T * H * W], if they are wanted

    @torch.inference_mode()
    def predict_step(self, batch: Sequence[LoadedClip], batch_idx: int = 0) -> list[tuple[str, str, str]]:
        """Add clips. Returns name, content hash and reason of failure of each, "" for a measured clip."""
        outcomes = []
        for clip, (features, reason) in zip(batch, self.read(batch), strict=True):
            if features is not None and (reason := self._unfit(clip, features)) == "":
                self._measure(clip, features)
            outcomes.append((clip_name(clip.job), clip.digest, reason))
        return outcomes

    def pooled(self, grid: Tensor, context: PoolingContext) -> Tensor:
        places = self.pooling.token_places(grid, context)
        frames, height, width = grid.shape[1:4]
        self.placed = None if places is None else (places[0].cpu().numpy(), (frames, height, width))
        if self.measured.overlap is not None:
            with self.clock("overlap"):
                self.fates = fates_of(self.pooling, grid, context)
        return super().pooled(grid, context)

    def _unfit(self, clip: LoadedClip, features: Tensor) -> str:
        """Why a clip cannot be pooled, or with its question exceeds the context, before it is added anywhere; or ""."""
        if not self.settings.pools:
            return ""
        frames, shape = clip.moments, self.backbone.shape
        size = self.grid_size(features[:frames])
        try:
            tokens = announced(self.pooling, *size) + beside(self.pooling, shape, size, self.layout)
        except PoolingShapeError as error:  # of a clip whose frames are smaller than others'
            return str(error)
        if not self.settings.llm_layers:
            return ""
        texts = self.backbone.texts_of(self.stamps(clip)).around(range(frames), self.layout)
        before, after = self._texts(clip, texts)
        tokens += len(before) + (len(after) if self.settings.attention_layers else 0)
        return "" if tokens <= shape.context else f"{tokens} tokens do not fit the context of {shape.context}"

    def _texts(self, clip: LoadedClip, around: tuple[str, str]) -> tuple[list[int], list[int]]:
        """Token ids of the clip's first question, before and after the visual tokens, with the texts around them."""
        sample, token = clip.job.samples[0], self.backbone.image_token
        question = sample.question or self.prompt.describe
        return self.backbone.split_prompt(
            self.prompt.text(question, sample.options, token).replace(token, token.join(around), 1)
        )

    def _measure(self, clip: LoadedClip, features: Tensor) -> None:
        """Add one clip; features [T, C + H*W, Dv]."""
        backbone, settings = self.backbone, self.settings
        first = features.to(backbone.device)
        frames = slice(clip.moments)  # the thumbnail after them is no frame
        texture = None
        if TEXTURE in clip.beside:
            texture = backbone.cells(clip.beside[TEXTURE])[frames, ..., 0].float().numpy()
        found: dict[str, ClipNorms] = {}
        for stage in settings.stages:
            if stage.kind == ENCODER:
                layer = clip.beside.get(f"layer {stage.layer}", first)[frames].to(first)
                found[stage.name] = self._add(stage.name, backbone.grid(layer), texture)
            elif stage.kind == PROJECTOR:
                with self.clock("project"):
                    projected = backbone.project(backbone.grid(first[frames]))
                found[stage.name] = self._add(stage.name, projected, texture)
        if self.measured.neurons is not None:
            with self.clock("norms"):
                self.measured.neurons.add(clip.beside[NEURONS][frames].double().numpy())
        tower = found.get(ENCODER)
        if tower is None and (settings.scores or settings.llm_layers or settings.overlap):
            with self.clock("norms"):
                tower = StageNorms(settings.p, settings.rules).add(backbone.grid(first[frames]))
        for score in settings.scores:
            assert tower is not None
            self._add_score(score, clip.beside[_score_key(score)][frames], tower, found)
        if settings.pools:
            self._measure_pooled(clip, first, texture, found, tower)
        if self.measured.overlap is not None and self.fates is not None and tower is not None:
            with self.clock("overlap"):
                scores = [clip.beside[_score_key(score)][frames] for score in settings.scores[:1]]
                saliency = backbone.cells(scores[0])[..., 0].double().numpy() if scores else None
                self.measured.overlap.add(self.fates, tower, saliency, self.tasks[clip_name(clip.job)])
        with self.clock("norms"):
            for name, births in self.measured.births.items():
                births.add([found[stage] for stage in settings.lineages[name]])

    def _add_score(self, score: TowerScore, values: Tensor, tower: ClipNorms, found: Mapping[str, ClipNorms]) -> None:
        """Add a score [T, C + H*W, 1] (by clip [T, h, w, 1]) of its frames, against norms at the feature layer."""
        with self.clock("norms"):
            shares = values[..., 0].double().numpy()
            axes = tuple(range(1, shares.ndim))
            shares = shares / shares.sum(axis=axes, keepdims=True)  # norms too, so that an equal share is 1
            layers = {stage.layer: found[stage.name] for stage in self.settings.stages if stage.kind == ENCODER}
            entering = layers[score.block - 1].norms.reshape(-1) if score.block - 1 in layers else None
            backbone = self.backbone  # a cell of several patches gets their sum
            own = backbone.cells(torch.from_numpy(shares)[..., None]).flatten(1).numpy() * backbone.shape.merge**2
            self.measured.scores[score.name].add(own, tower, entering)

    def _measure_pooled(
        self,
        clip: LoadedClip,
        features: Tensor,
        texture: np.ndarray | None,
        found: dict[str, ClipNorms],
        tower: ClipNorms | None,
    ) -> None:
        """Add one clip at the stages after the pooling; features [T, C + H*W, D], tower: norms at the feature layer."""
        backbone, settings, measured = self.backbone, self.settings, self.measured
        question = clip.job.samples[0].question or self.prompt.describe
        vector = backbone.text_vector(question)[None] if TEXT in self.pooling.needs else None
        arranged = self.tokens_of([clip], features[None], vector)
        at = arranged.at[0].to(arranged.states.device)
        shape: tuple[int, ...] = (len(at),)
        if isinstance(self.pooling, GridPooling):
            shape = self.pooling.out_shape(*self.grid_size(features[: clip.moments]))
        grid = backbone.main(arranged.states[0, at]).unflatten(0, shape)
        if POOLED in measured.stages:
            read = self._add(POOLED, grid, texture, self.placed)
        else:
            with self.clock("norms"):
                read = StageNorms(settings.p, settings.rules).add(grid)
        if not settings.llm_layers:
            return
        before, after = (
            backbone.words(torch.tensor([ids], dtype=torch.long, device=backbone.device))
            for ids in self._texts(clip, arranged.texts[0])
        )
        with self.clock("language model"):
            parts = [before, arranged.states.to(backbone.device, backbone.dtype), after]
            prompt = torch.cat(parts if settings.attention_layers else parts[:2], dim=1)
            behind = after.shape[1] if settings.attention_layers else 0
            positions = arranged.within(0, before.shape[1], behind)
            states, attention = llm_states(backbone, prompt, settings.llm_layers, settings.attention_layers, positions)
        place = before.shape[1] + at.to(backbone.device)
        for stage in settings.stages:
            if stage.kind == LLM:
                own = states[stage.layer or 0][0, place].unflatten(0, shape)
                found[stage.name] = self._add(stage.name, own, texture, self.placed)
                if self.placed is not None and tower is not None:
                    measured.crossed[stage.name].add(tower, found[stage.name], self.placed[0])
        for number, weights in attention.items():
            entering = token_norms(states[number - 1][0, place], settings.p).cpu().double().numpy()
            measured.attention[number].add(weights[0, place].double().cpu().numpy(), read, entering)

    def _add(self, stage: str, tokens: Tensor, texture: np.ndarray | None, placed: Placed | None = None) -> ClipNorms:
        with self.clock("norms"):
            clip = self.measured.stages[stage].add(tokens, texture, placed)
        if stage in self.measured.vocabulary:
            with self.clock("vocabulary"):
                self.measured.vocabulary[stage].add(*nearest(tokens.flatten(0, -2), self._vocabulary), clip)
        return clip

    @cached_property
    def _vocabulary(self) -> Tensor:
        """Directions [V, D] of the embeddings of the tokenizer's entries."""
        return unit(self.backbone.embed(torch.arange(len(self.backbone.tokenizer), device=self.backbone.device)))


class NormLog:
    """Saves a measurement in a point's folder after every so many clips, the most that a kill costs."""

    def __init__(self, folder: Path, measured: Measurement, clips: MeasuredSoFar, every: int) -> None:
        self.path = folder / "norms"  # the progress bar shows the parent's name
        self.measured, self.clips, self.every = measured, clips, every
        self._fresh = 0

    def append(self, outcomes: Sequence[tuple[str, str, str]]) -> None:
        """Note clips that the meter has finished."""
        for name, content, reason in outcomes:
            if reason:
                self.clips.failed[name] = reason
            else:
                self.clips.done[name] = content
        self._fresh += len(outcomes)
        if self._fresh >= self.every:
            self.save()

    def save(self) -> None:
        """Save all so far. Raises NormsError if it cannot be written."""
        save_partial(self.path.parent, self.measured, self.clips)
        self._fresh = 0
