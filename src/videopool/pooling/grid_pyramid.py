"""Some frames replaced by a picture of several frames, at growing distances: ST-GridPool's temporal gridding.

ST-GridPool (arXiv 2605.22078, ICLR 2026), `prepare_unit` in llava/model/llava_arch.py and `create_image_grid` in
prepare_inputs.py of bingjunluo/ST-GridPool. A level with step f looks at n = floor(T / f) frames, those with index
round(k * T / n - 1) for k = 1..n (halves to even). Of each g of them in turn the features are shrunk by area and tiled
into one frame, row after row, which takes the place of the last of the g. Levels follow one another, so a later one
may tile what an earlier one has tiled. Published: g = 4 at f = 2, 4 and 8, on 64 frames behind the projector, then
`NormWeighted` with stride 2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from videopool.pooling.adaptive import pool_axes
from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError, positive


def tiling(count: int) -> tuple[int, int]:
    """(rows, cols) of so many tiles, as near to a square as divisors allow, with at least as many rows as cols."""
    cols = next(cols for cols in range(math.isqrt(count), 0, -1) if count % cols == 0)
    return count // cols, cols


def tiled(frames: Tensor) -> Tensor:
    """Frames [B, g, H, W, D] in one frame [B, H, W, D].

    Each is averaged to ceil(H / rows) x ceil(W / cols) by adaptive windows; what stands out is cut off, on the
    right and below.
    """
    _, count, height, width, _ = frames.shape
    rows, cols = tiling(count)
    small = pool_axes(frames, {2: -(-height // rows), 3: -(-width // cols)}, "avg")
    tiles = small.unflatten(1, (rows, cols)).transpose(2, 3)  # [B, rows, h, cols, w, D]
    return tiles.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class GridPyramid(GridPooling):
    """Replace frames by tilings of frames; the grid keeps its shape. Clips too short for a level skip it.

    The reference finds frames in float32, which for some T (never where f divides T) takes the other neighbour where
    k * T / n is a half.

    Args:
        frames: in a tiling, for each level.
        steps: distance of the frames that are tiled, for each level.

    Raises:
        PoolingShapeError: frames and steps are not lists of equally many positive integers, at least one.
    """

    def __init__(self, frames: Sequence[int] = (4, 4, 4), steps: Sequence[int] = (2, 4, 8)) -> None:
        super().__init__()
        for key, value in (("frames", frames), ("steps", steps)):
            if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
                raise PoolingShapeError(f"pooling.{key} must be a list of positive integers, got {value!r}")
        if len(frames) != len(steps) or not frames:
            raise PoolingShapeError(
                f"pooling.frames and pooling.steps must have one number for each level, got {list(frames)} and "
                f"{list(steps)}"
            )
        self.levels = [
            (positive("frames", count), positive("steps", step)) for count, step in zip(frames, steps, strict=True)
        ]

    def groups(self, frames: int) -> list[list[list[int]]]:
        """For each level the frames of each tiling; it takes the place of the last of them."""
        found = []
        for count, step in self.levels:
            seen = frames // step
            chosen = [round(k * frames / seen - 1) for k in range(1, seen + 1)]
            found.append([chosen[i : i + count] for i in range(0, seen - count + 1, count)])
        return found

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        frames = list(grid.unbind(1))
        for level in self.groups(grid.shape[1]):
            made = [tiled(torch.stack([frames[i] for i in group], dim=1)) for group in level]
            for group, frame in zip(level, made, strict=True):
                frames[group[-1]] = frame
        return torch.stack(frames, dim=1)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, width

    @property
    def label(self) -> str:
        return "grid pyramid " + " ".join(f"{count}/{step}" for count, step in self.levels)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"tiled": self.groups(frames)}
