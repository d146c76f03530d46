"""The LightningModule: a backbone that reads clips through a pooling."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError
from videopool.models.stages import CLS, FRAME_TIMES, STAGES, TEXT, THUMBNAIL, check_needs
from videopool.models.texts import BLOCK, FRAMES, Stamps
from videopool.pooling import GridPooling, Pooling, PoolingContext, checked
from videopool.pooling.base import TOWER
from videopool.pooling.carrying import carried, check_map
from videopool.reading.layout import Arranged, arrange, spots_of
from videopool.reading.merging import IGNORED, Merged, merge

LONG = 1024  # positions from which on reading a common prefix first is faster


class VideoLM(pl.LightningModule):
    """Frames -> tower -> projector -> pooling -> language model.

    Stage "projector" pools after the projector, "encoder" before it; the two differ, because the projector is not
    linear. The layout says what stands between visual tokens; `original`: their positions are those of the whole grid.
    Raises ModelError if there is no such stage, or the model lacks a context that the pooling needs.
    """

    def __init__(
        self, backbone: Backbone, pooling: Pooling, stage: str = "projector", layout: str = FRAMES,
        original: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if stage not in STAGES:
            raise ModelError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
        check_needs(pooling, backbone.shape, backbone.name, stage)
        self.backbone, self.pooling, self.stage = backbone, pooling, stage
        self.layout, self.original = layout, original
        self._mapped = 0  # id of the last pooling that is known to have a map, for DeepStack

    def visual_tokens(self, features: Tensor, *more: Any, **named: Any) -> Tensor:
        """The states [B, L, D] of arranged(), whose arguments it takes."""
        return self.arranged(features, *more, **named).states

    def arranged(
        self,
        features: Tensor,
        text: Tensor | None = None,
        frame_times: Tensor | None = None,
        beside: Mapping[str, Tensor] | None = None,
        stamps: Sequence[Stamps] | None = None,
    ) -> Arranged:
        """Tower features [B, T, C + H*W, Dv] to visual tokens, among the family's texts and newlines.

        Tokens of a family with DeepStack have its levels as further columns.

        For a pooling that needs a thumbnail, its features follow the frames': [B, T + 1, C + H*W, Dv]. Others need
        text, [B, D] prompts from Backbone.text_vector(); frame_times, [T] seconds, the same for all clips; or, by name,
        the outputs of tower_outputs() [B, T, rows, width] beside the features. Stamps are by clip; None: a frame each
        second. Raises ModelError for a saliency that is the same for all patches.
        """
        grid, context = self.pooling_input(features, text, frame_times, beside)
        asked = FRAMES if self.layout == FRAMES and self.backbone.spreads else BLOCK
        spots = spots_of(self.pooling, grid, context, asked) if asked == FRAMES or self.original else None
        tokens = self.pooled(grid, context)
        tokens = self.backbone.project(tokens) if self.stage == "encoder" else tokens
        if self.backbone.shape.levels:
            tokens = torch.cat([tokens, *self._levels(features, grid, context)], dim=-1)
        frames, height, width = grid.shape[1:4]
        cells = self.pooling.out_shape(frames, height, width) if isinstance(self.pooling, GridPooling) else None
        stamps = stamps or [Stamps(range(frames), float(frames))] * len(grid)
        size = (frames, height, width)
        return arrange(self.backbone, tokens, size, stamps, self.layout, spots, self.original, cells)

    @torch.no_grad()
    def _levels(self, features: Tensor, grid: Tensor, context: PoolingContext) -> list[Tensor]:
        """The tokens [B, N, D] of DeepStack's levels, by the map that the pooling takes at the grid."""
        backbone, thumbnail = self.backbone, THUMBNAIL in self.pooling.needs
        before = self.stage == "projector"

        def grids(features: Tensor) -> list[Tensor]:
            own = enumerate(backbone.level_grids(features))
            return [backbone.project_level(level, one) if before else one for level, one in own]

        if self._mapped != id(self.pooling):  # training has one for images
            check_map(self.pooling, grid, context)
            self._mapped = id(self.pooling)
        tokens = carried(
            self.pooling, grid, context, grids(features[:, :-1] if thumbnail else features),
            grids(features[:, -1]) if thumbnail else (),
        )  # fmt: skip
        return tokens if before else [backbone.project_level(level, one) for level, one in enumerate(tokens)]

    def pooled(self, grid: Tensor, context: PoolingContext) -> Tensor:
        """The pooling of a grid [B, T, H, W, D] as tokens [B, N, D], held to its contract."""
        return checked(self.pooling, grid, context)

    def pooling_input(
        self,
        features: Tensor,
        text: Tensor | None = None,
        frame_times: Tensor | None = None,
        beside: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, PoolingContext]:
        """The input of the pooling in visual_tokens(): patch grid [B, T, H, W, D] at the stage, and context."""
        backbone, needs = self.backbone, self.pooling.needs
        frames = features[:, :-1] if THUMBNAIL in needs else features
        given = {name: values[:, : frames.shape[1]].to(features.device) for name, values in (beside or {}).items()}
        saliency, keys, vectors = (given.get(name) if name in needs else None for name in TOWER)
        at_stage: Callable[[Any], Tensor] = backbone.project if self.stage == "projector" else nn.Identity()
        context = PoolingContext(
            frame_times=frame_times if FRAME_TIMES in needs else None,
            cls=at_stage(frames[..., 0, :]) if CLS in needs else None,
            text=text if TEXT in needs else None,
            thumbnail=at_stage(backbone.grid(features[:, -1])) if THUMBNAIL in needs else None,
            saliency=None if saliency is None else self._saliency(saliency),
            keys=None if keys is None else backbone.cells(keys.to(backbone.dtype)),
            frame_vectors=None if vectors is None else vectors[:, :, 0],
        )
        return at_stage(backbone.grid(frames)), context

    def _saliency(self, values: Tensor) -> Tensor:
        """[B, T, H, W] of the tower's [B, T, C + H*W, 1]. Raises ModelError if all patches of a clip have the same."""
        saliency = self.backbone.cells(values)[..., 0]
        low, high = saliency.flatten(1).aminmax(dim=1)
        if saliency[0, 0].numel() > 1 and (low == high).any():
            raise ModelError(
                f"pooling {self.pooling.label}: the saliency that the tower of {self.backbone.name} gives is the same "
                "for all patches of a clip: nothing can be chosen by it"
            )
        return saliency

    def token_losses(
        self,
        ids: Tensor,
        media: Sequence[Sequence[Tensor]],
        mask: Tensor,
        labels: Tensor,
        rounds: Tensor | None = None,
        places: Sequence[tuple[Tensor, int]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each labelled token, row after row; no other logits are computed.

        Arguments are those of merge(). Returns losses [labelled tokens] in float32, and the row of each.
        """
        merged = merge(self.backbone, ids, media, mask, labels, rounds, places)
        hidden, start = self._hidden(merged)
        wanted = merged.labels[:, start + 1 :]
        chosen = wanted != IGNORED
        logits = self.backbone.logits(hidden[:, :-1][chosen])
        return cross_entropy(logits, wanted[chosen], reduction="none"), chosen.nonzero()[:, 0]

    def _hidden(self, merged: Merged) -> tuple[Tensor, int]:
        """Last hidden states [B, L - start, D] of a merged batch, and `start`; no position before it has a label.

        A long common prefix is read first, as evaluation reads questions: it is plainly causal, which takes half the
        attention of a mask over all, and visual tokens are most of it.
        """
        start, cache = 0, None
        recomputed = getattr(self.backbone.language_model, "gradient_checkpointing", False)
        if merged.common >= LONG and not recomputed:  # recomputed layers keep no KV cache
            start, cache = merged.common, DynamicCache()
            self.backbone.read(merged.embeddings[:, :start], positions=merged.positions[..., :start], cache=cache)
        mask = merged.attention[:, :, start:] if start else merged.attention
        return self.backbone.read(merged.embeddings[:, start:], mask, merged.positions[..., start:], cache), start
