"""Qwen2.5-VL: two frames side by side in one patch of time, and positions of time, row and column.

Shapes: a view is two frames, [6, S, S]; the tower's patches of a view stand row by row in features [T, P, Dt], although
the tower itself keeps merged ones together and orders them by its windows.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor

from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError
from videopool.models.passes import Clock, device_of, layer_states
from videopool.models.texts import Stamps
from videopool.models.tower_outputs import LayerStates, Pass, TowerOutput


class Qwen25VL(Backbone):
    """Qwen2.5-VL (arXiv 2502.13923) on square views of one size (`model.frame_size`)."""

    model_type = "qwen2_5_vl"
    architecture = "Qwen2_5_VLForConditionalGeneration"
    towers: ClassVar = {"video": "visual", "image": "visual"}
    tower_kind = "qwen2_5_vl"
    projector_name = "visual.merger"
    frame_size = 448
    together = 2
    mrope = True

    @classmethod
    def merged(cls, config: Any) -> int:
        return int(config.vision_config.spatial_merge_size)

    @classmethod
    def inner_width(cls, width: int) -> int | None:
        return width

    def project(self, grid: Tensor) -> Tensor:
        """The norm is of single patches; two layers follow on merged ones."""
        merger: Any = self.projector
        normed = merger.ln_q(grid.unflatten(-1, (-1, self.shape.tower_dim))).flatten(-2)
        projected: Tensor = merger.mlp(normed).to(self.device)
        return projected

    @torch.inference_mode()
    def encode_at_once(
        self, frames: Sequence[Tensor] | Tensor, media: str, outputs: Sequence[TowerOutput], clock: Clock = nullcontext
    ) -> list[Tensor]:
        """As a Backbone's, for views [6, S, S]; one image [3, S, S] stands for two. Raises ModelError for attention."""
        tower: Any = self.tower(media)
        if other := [one.name for one in outputs if one.layers and not isinstance(one, LayerStates)]:
            raise ModelError(f"{other[0]}: hidden states alone are read from the tower of {self.name}")
        device = device_of(tower)
        views = torch.stack([frame.to(device, non_blocking=True) for frame in frames])
        views = views.repeat(1, self.together, 1, 1) if views.shape[1] == 3 else views
        shape, layers = self.shape, sorted({layer for one in outputs for layer in one.layers})
        size = torch.tensor([[len(views), *[shape.image_size // shape.patch] * 2]], device=device)
        patches = self._patches(views).to(next(tower.parameters()).dtype)
        found = layer_states(tower.blocks, lambda: tower(patches, grid_thw=size), layers) if layers else {}
        seen = Pass(tower, views[:, :3], {layer: self._by_row(own, size) for layer, own in found.items()}, {})
        return [one.of(seen)[:, : one.size[0]] for one in outputs]

    def _patches(self, views: Tensor) -> Tensor:
        """Views [T, 6, S, S] as the tower takes them: patches [T * P, 3 * 2 * p * p], merged ones together."""
        height, merge, patch = self.shape.height, self.shape.merge, self.shape.patch
        parts = views.view(len(views), self.together, 3, height, merge, patch, height, merge, patch)
        return parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(views) * self.shape.patches, -1)

    def _by_row(self, states: Tensor, size: Tensor) -> Tensor:
        """States [T * P, D] in the order of the tower's windows to [T, P, D], row by row."""
        from transformers.vision_utils import get_vision_window_index  # here, because a plan needs none of it

        settings, merge = self.model.config.vision_config, self.shape.merge
        order, _ = get_vision_window_index(size, merge, settings.window_size, settings.patch_size)
        cells = states.unflatten(0, (-1, merge**2))[order.to(states.device).argsort()]
        height = self.shape.height
        parts = cells.view(-1, height, height, merge, merge, states.shape[-1]).transpose(2, 3)
        return parts.reshape(len(parts), self.shape.patches, -1)

    def grid_positions(self, size: tuple[int, int, int], frames: int, stamps: Stamps) -> Tensor:
        """[T * H * W, 3] positions of time, row and column of a grid's cells, that shows so many moments of a clip.

        Time goes on by `tokens_per_second`. As in transformers, what follows the clip begins behind its largest side.
        """
        times = list(stamps.times)
        apart = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0
        step = round(float(self.model.config.vision_config.tokens_per_second) * apart * frames / size[0], 6)
        moments = (torch.arange(size[0]) * step).long()
        axes = torch.meshgrid(moments, torch.arange(size[1]), torch.arange(size[2]), indexing="ij")
        return torch.stack(axes, dim=-1).flatten(0, 2)
