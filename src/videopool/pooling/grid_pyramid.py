"""Frames replaced by a picture of several frames, at growing distances: ST-GridPool's temporal gridding.

ST-GridPool (arXiv 2605.22078, ICLR 2026), `prepare_unit` in llava/model/llava_arch.py and `create_image_grid` in
prepare_inputs.py of bingjunluo/ST-GridPool. A level with step f takes n = floor(T / f) frames, with indices
round(k * T / n - 1) for k = 1..n (halves to even). Of each g of them in turn it shrinks the features by area and tiles
them into one frame, row after row, which replaces the last of the g. A later level may tile the result of an earlier
one. Published: g = 4 at f = 2, 4 and 8, on 64 frames after the projector, then `NormWeighted` with stride 2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from videopool.pooling.adaptive import pool_axes
from videopool.pooling.base import PoolingContext, PoolingShapeError
from videopool.pooling.checks import listed, positive
from videopool.pooling.intervention import Intervention


def tiled_features(frames: Tensor) -> Tensor:
    """Frames [B, g, H, W, D] in one frame [B, H, W, D].

    Rows and columns of tiles are as near to a square as the divisors of g allow, with at least as many rows as columns.
    Each frame is averaged to ceil(H / rows) x ceil(W / cols) by adaptive windows; the overhang on the right and below
    is cut off.
    """
    _, count, height, width, _ = frames.shape
    cols = next(cols for cols in range(math.isqrt(count), 0, -1) if count % cols == 0)
    rows = count // cols
    small = pool_axes(frames, {2: -(-height // rows), 3: -(-width // cols)}, "avg")
    tiles = small.unflatten(1, (rows, cols)).transpose(2, 3)  # [B, rows, h, cols, w, D]
    return tiles.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class GridPyramid(Intervention):
    """Replace frames by tilings of frames; the grid keeps its shape. A level that needs more frames is skipped.

    The reference computes frame indices in float32, which for some T (never if f divides T) takes the other neighbour
    where k * T / n is a half.

    Args:
        frames: g of each level.
        steps: f of each level.

    Raises PoolingShapeError unless frames and steps are equally long lists of positive integers, at least one.
    """

    def __init__(self, frames: Sequence[int] = (4, 4, 4), steps: Sequence[int] = (2, 4, 8)) -> None:
        super().__init__()
        for key, value in (("frames", frames), ("steps", steps)):
            listed(key, value, "at least one positive integer")
        if len(frames) != len(steps):
            raise PoolingShapeError(
                f"pooling.frames and pooling.steps must have one number for each level, got {list(frames)} and "
                f"{list(steps)}"
            )
        self.levels = [
            (positive("frames", count), positive("steps", step)) for count, step in zip(frames, steps, strict=True)
        ]
        self._label = "grid pyramid " + " ".join(f"{count}/{step}" for count, step in self.levels)

    def groups(self, frames: int) -> list[list[list[int]]]:
        """The frames of each tiling, by level. A tiling replaces the last of its frames."""
        levels = []
        for count, step in self.levels:
            seen = frames // step
            chosen = [round(k * frames / seen - 1) for k in range(1, seen + 1)]
            levels.append([chosen[i : i + count] for i in range(0, seen - count + 1, count)])
        return levels

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        frames = list(grid.unbind(1))
        for level in self.groups(grid.shape[1]):
            tilings = [tiled_features(torch.stack([frames[i] for i in group], dim=1)) for group in level]
            for group, tiling in zip(level, tilings, strict=True):
                frames[group[-1]] = tiling
        return torch.stack(frames, dim=1)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"tiled": self.groups(frames)}
