"""Poolings made of poolings."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from videopool.pooling.adaptive import axis_windows, pool_axes
from videopool.pooling.base import GridPooling, Pooling, PoolingContext
from videopool.pooling.checks import grid_to_grid, listed, needed, positive, untiled
from videopool.pooling.contract import tiled_by

TOWERS = (
    ". CLIP towers have a CLS token for each frame (LLaVA-1.5, LLaVA-NeXT, Video-LLaVA, the bundled toy model), SigLIP "
    "towers have none (LLaVA-OneVision)"
)


class Chain(GridPooling):
    """Grid poolings one after another.

    Args:
        steps: at least one grid pooling. Only the first may tile, because tiling precedes the tower.

    Raises PoolingContractError if a step is no grid pooling or a later step tiles.
    """

    def __init__(self, steps: Sequence[GridPooling]) -> None:
        super().__init__()
        listed("steps", steps, "at least one pooling")
        why = "which is done before the tower, so it must be the first step"
        later = [untiled("steps", step, why) for step in steps[1:]]
        self.chain: Sequence[GridPooling] = nn.ModuleList([grid_to_grid("steps", steps[0]), *later])  # type: ignore[assignment]
        self.needs = frozenset().union(*(step.needs for step in steps))
        self.tiles = steps[0].tiles
        self._label = " + ".join(step.label for step in steps)

    def tile(self, frames: np.ndarray) -> np.ndarray:
        """The image that the first step makes of a clip's frames."""
        return tiled_by(self.chain[0], frames)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        for step in self.chain:
            grid = step.pool(grid, context)
        return grid

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        shape = (frames, height, width)
        for step in self.chain:
            shape = step.out_shape(*shape)
        return shape

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        shape, parts = (frames, height, width), []
        for step in self.chain:
            parts.append({"step": step.label, **step.windows(*shape)})
            shape = step.out_shape(*shape)
        return {"steps": parts}


class SlowFast(Pooling):
    """A slow path of few frames in detail, then a fast path of all frames, coarse: SlowFast-LLaVA (arXiv 2407.15841).

    `prepare_slowfast` in slowfast_llava/llava/model/llava_arch.py of apple/ml-slowfast-llava: of S slow frames, frame
    i is floor(i * T / S), computed there in float32, which for some S (never 10) gives the frame before. The reference
    repeats frames of a clip with fewer than S. Published: 50 frames of 24 x 24; 10 slow ones with pairs merged by their
    maximum, all averaged to 4 x 4: 10 * 288 + 50 * 16 = 3680 tokens.

    Args:
        slow_frames: S; a clip with fewer frames gives each of them once.
        slow: pools the slow frames.
        fast: pools all frames.

    Raises PoolingContractError if slow or fast is no grid pooling or tiles.
    """

    def __init__(self, slow_frames: int, slow: GridPooling, fast: GridPooling) -> None:
        super().__init__()
        self.slow_frames = positive("slow_frames", slow_frames)
        self.slow = untiled("slow", slow, "and the two paths need frames")
        self.fast = untiled("fast", fast, "and the two paths need frames")
        self.needs = slow.needs | fast.needs
        self._label = f"slowfast {slow_frames} {slow.label} + {fast.label}"

    def slow_indices(self, frames: int) -> list[int]:
        """Indices of the frames of the slow path."""
        count = min(self.slow_frames, frames)
        return [i * frames // count for i in range(count)]

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        chosen = self.slow_indices(grid.shape[1])
        slow = self.slow(grid[:, chosen], context.of_frames(chosen) if context else None)
        return torch.cat([slow, self.fast(grid, context)], dim=1)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        slow = self.slow.num_tokens(min(self.slow_frames, frames), height, width)
        return slow + self.fast.num_tokens(frames, height, width)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        chosen = self.slow_indices(frames)
        return {
            "slow_frames": chosen,
            "slow": self.slow.windows(len(chosen), height, width),
            "fast": self.fast.windows(frames, height, width),
        }


class FrameCls(Pooling):
    """For each frame its CLS token, then its cells: Video-LLaVA (arXiv 2311.10122).

    `feature_select` of LanguageBindVideoTower in videollava/model/multimodal_encoder/languagebind/__init__.py of
    PKU-YuanGroup/Video-LLaVA returns all tokens: 8 frames of 16 x 16, not pooled, give 8 * 257 = 2056.
    If the inner pooling of patches changes T frames to T', adaptive windows of T pooled to T' average the CLS tokens.

    Raises PoolingContractError if inner is no grid pooling, or the context lacks CLS tokens of the grid's size.
    """

    def __init__(self, inner: GridPooling) -> None:
        super().__init__()
        self.inner = grid_to_grid("inner", inner)
        self.needs = inner.needs | {"cls"}
        self.tiles = inner.tiles
        self._label = f"cls + {inner.label}"

    def tile(self, frames: np.ndarray) -> np.ndarray:
        """The image that the inner pooling makes of a clip's frames."""
        return tiled_by(self.inner, frames)

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        cls = needed(self, context, "cls", (*grid.shape[:2], grid.shape[-1]), TOWERS)
        cells = self.inner.pool(grid, context).flatten(2, 3)  # [B, T', H' * W', D]
        return torch.cat([pool_axes(cls, {1: cells.shape[1]}, "avg").unsqueeze(2), cells], dim=2).flatten(1, 2)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return self.inner.num_tokens(frames, height, width) + self.inner.out_shape(frames, height, width)[0]

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        out_frames = self.inner.out_shape(frames, height, width)[0]
        return {"cls": axis_windows(frames, out_frames), "inner": self.inner.windows(frames, height, width)}
