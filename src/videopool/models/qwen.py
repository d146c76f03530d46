"""Qwen's models: two frames side by side in one patch of time, and positions of time, row and column.

Shapes: a view is two frames, [6, S, S]; the tower's patches of a view stand row by row in features [T, P, Dt], although
the tower itself keeps merged ones together, and Qwen2.5-VL's orders them by its windows. Views that keep the
proportions of their clip, [6, h, w], have features [T, H * M, W * M, Dt] of merged patches M x M.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from videopool.models.backbone import Backbone
from videopool.models.passes import Clock, device_of, layer_states
from videopool.models.texts import FrameTexts, Stamps
from videopool.models.tower_outputs import Attended, LayerStates, Pass, TowerOutput


class QwenVL(Backbone):
    """What the families share; views are squares of one size, or have their clip's proportions (`model.frame_size`)."""

    towers: ClassVar = {"video": "visual", "image": "visual"}
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

    @torch.inference_mode()
    def encode_at_once(
        self, frames: Sequence[Tensor] | Tensor, media: str, outputs: Sequence[TowerOutput], clock: Clock = nullcontext
    ) -> list[Tensor]:
        """As a Backbone's, for views [6, S, S] of one size; one image [3, S, S] stands for two."""
        tower: Any = self.tower(media)
        device = device_of(tower)
        views = torch.stack([frame.to(device, non_blocking=True) for frame in frames])
        views = views.repeat(1, self.together, 1, 1) if views.shape[1] == 3 else views
        shape, layers = self.shape, sorted({layer for one in outputs for layer in one.layers})
        sides = [side // shape.patch for side in views.shape[2:]]
        size = torch.tensor([[len(views), *sides]], device=device)
        patches = self._patches(views).to(next(tower.parameters()).dtype)
        blocks, caught = {one.block for one in outputs if one.block}, dict[tuple[int, str], Any]()
        with ExitStack() as hooks:
            for block in blocks:
                attention, turns = tower.blocks[block - 1].attn, partial(_keep_turns, caught, (block, "turns"))
                hooks.enter_context(attention.qkv.register_forward_hook(partial(_keep, caught, (block, "qkv"))))
                hooks.enter_context(attention.register_forward_pre_hook(turns, with_kwargs=True))
            found = layer_states(tower.blocks, lambda: tower(patches, grid_thw=size), layers) if layers else {}
        states = {layer: self._by_row(own, size) for layer, own in found.items()}
        seen = Pass(tower, views[:, :3], states, *self._attention(caught, blocks, size))
        computed = []
        for one in outputs:
            with clock() if one.layers and not isinstance(one, LayerStates) else nullcontext():
                computed.append(one.of(seen))
        return [own.unflatten(1, sides) for own in computed] if shape.by_clip else computed

    def _attention(
        self, caught: Mapping[tuple[int, str], Any], blocks: set[int], size: Tensor
    ) -> tuple[dict[tuple[int, str], Tensor], dict[int, Attended]]:
        """Queries, keys and values of blocks as they leave the projection, and as the blocks multiply them."""
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

        projections, attended = dict[tuple[int, str], Tensor](), dict[int, Attended]()
        for block in blocks:
            parts = caught[block, "qkv"].chunk(3, dim=-1)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                projections[block, name] = self._by_row(part, size)
            heads = (part.unflatten(-1, (self.shape.vision_heads, -1)) for part in parts[:2])
            queries, keys = (one.flatten(1) for one in apply_rotary_pos_emb_vision(*heads, *caught[block, "turns"]))
            windows = self._windows(block, size)
            attended[block] = Attended(self._by_row(queries, size), self._by_row(keys, size), windows)
        return projections, attended

    def _patches(self, views: Tensor) -> Tensor:
        """Views [T, 6, S, S] as the tower takes them: patches [T * P, 3 * 2 * p * p], merged ones together."""
        merge, patch = self.shape.merge, self.shape.patch
        height, width = (side // (merge * patch) for side in views.shape[2:])
        parts = views.view(len(views), self.together, 3, height, merge, patch, width, merge, patch)
        return parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(views) * height * width * merge**2, -1)

    def _by_row(self, states: Tensor, size: Tensor) -> Tensor:
        """States [T * P, D] in the tower's order to [T, P, D], row by row; size [1, 3]: T and the patches on a side."""
        merge = self.shape.merge
        count, height, width = size[0].tolist()
        parts = states.view(count, height // merge, width // merge, merge, merge, -1).transpose(2, 3)
        return parts.reshape(count, height * width, -1)

    def _windows(self, block: int, size: Tensor) -> Tensor | None:
        """The number [P] of the window in which each patch attends in a block; None: over the whole view."""
        return None


class Qwen25VL(QwenVL):
    """Qwen2.5-VL (arXiv 2502.13923): most blocks of its tower attend within windows."""

    model_type = "qwen2_5_vl"
    architecture = "Qwen2_5_VLForConditionalGeneration"
    tower_kind = "qwen2_5_vl"

    def project(self, grid: Tensor) -> Tensor:
        """The norm is of single patches; two layers follow on merged ones."""
        merger: Any = self.projector
        normed = merger.ln_q(grid.unflatten(-1, (-1, self.shape.tower_dim))).flatten(-2)
        projected: Tensor = merger.mlp(normed).to(self.device)
        return projected

    def _order(self, size: Tensor) -> tuple[Tensor, Tensor]:
        """The places of merged patches in the order of the tower's windows, and where windows end, in patches."""
        from transformers.vision_utils import get_vision_window_index  # here, because a plan needs none of it

        settings = self.model.config.vision_config
        return get_vision_window_index(size, self.shape.merge, settings.window_size, settings.patch_size)

    def _by_row(self, states: Tensor, size: Tensor) -> Tensor:
        order = self._order(size)[0].to(states.device)
        return super()._by_row(states.unflatten(0, (-1, self.shape.merge**2))[order.argsort()].flatten(0, 1), size)

    def _windows(self, block: int, size: Tensor) -> Tensor | None:
        if block - 1 in self.model.config.vision_config.fullatt_block_indexes:
            return None
        one = torch.ones_like(size)
        one[:, 1:] = size[:, 1:]
        lengths = self._order(one)[1].diff()
        numbers = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        return self._by_row(numbers[:, None], one)[0, :, 0]

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


class Qwen3VL(QwenVL):
    """Qwen3-VL (arXiv 2511.21631), dense: each moment is a grid of its own, behind its time.

    DeepStack: layers of the tower have projectors of their own, and are added to the language model's first layers.
    """

    model_type = "qwen3_vl"
    architecture = "Qwen3VLForConditionalGeneration"
    tower_kind = "qwen3_vl"
    whole_clip = True
    frame_text = 9  # "<|vision_end|>", "<12.3 seconds>", "<|vision_start|>"

    @property
    def feature_states(self) -> LayerStates:
        """The last layer's, and behind them those of DeepStack's layers."""
        shape = self.shape
        levels = [block + 1 for block in self.model.config.vision_config.deepstack_visual_indexes]
        size = shape.tower_rows, shape.tower_dim * (1 + len(levels))
        return LayerStates(f"-1, DeepStack {levels}", size, (shape.vision_layers, *levels))

    def project(self, grid: Tensor) -> Tensor:
        return self._merged(self.projector, grid)

    def project_level(self, level: int, grid: Tensor) -> Tensor:
        tower: Any = self.tower("video")
        return self._merged(tower.deepstack_merger_list[level], grid)

    def _merged(self, merger: Any, grid: Tensor) -> Tensor:
        rows: Tensor = merger(grid.reshape(-1, self.shape.tower_dim))
        return rows.unflatten(0, grid.shape[:-1]).to(self.device)

    def frame_texts(self, stamps: Stamps) -> FrameTexts:
        start, end = "<|vision_start|>", "<|vision_end|>"
        before = [f"<{time:.1f} seconds>{start}" for time in stamps.times]
        return FrameTexts("", before, [end] * len(before))  # the prompt has a pair of tags around the whole

    def llm(self, embeddings: Tensor, **options: Any) -> Any:
        states, levels = self.main(embeddings), embeddings[..., self.shape.dim :]
        if levels.shape[-1]:
            options["visual_pos_masks"] = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
            split = levels.unflatten(-1, (self.shape.levels, -1)).unbind(-2)
            options["deepstack_visual_embeds"] = [level.flatten(0, 1) for level in split]
        return super().llm(states, **options)


def _keep(caught: dict[tuple[int, str], Any], name: tuple[int, str], _: Any, __: Any, output: Tensor) -> None:
    caught[name] = output


def _keep_turns(
    caught: dict[tuple[int, str], Any], name: tuple[int, str], _: Any, __: Any, options: dict[str, Any]
) -> None:
    caught[name] = options["position_embeddings"]
