"""Poolings that show several frames in one: in an image before the tower, or in the features of a frame."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from videopool.pooling.adaptive import pool_axes
from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, PoolingShapeError
from videopool.pooling.checks import listed, needed, positive
from videopool.pooling.intervention import Intervention
from videopool.pooling.tiling import equidistant, filled, tiled
from videopool.pooling.token_merging import Subsample

GREY = (122, 116, 104)  # CLIP's mean colour


def squared(images: np.ndarray) -> np.ndarray:
    """Images [N, h, w, 3] in the middle of a square [N, s, s, 3]: LLaVA-1.5's `expand2square`.

    A tower that crops to the middle would cut off the outer frames.
    """
    count, height, width, _ = images.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((count, side, side, 3), GREY, images.dtype)
    square[:, top : top + height, left : left + width] = images
    return square


class ImageGrid(Pooling):
    """The tokens of one image of all frames, which `tile` makes before the tower: IG-VLM (arXiv 2403.18406).

    `create_grid_view_as_array_from_image_array` in vision_processor/gridview_generator.py of imagegridworth/IG-VLM: row
    after row, round(sqrt(n)) frames per row, so six frames make three rows of two. Frames are tiled at their own size;
    the model's image processor then takes the image like any other.

    Raises PoolingShapeError unless there are rows * cols frames, PoolingContractError for a grid that was not tiled.
    """

    tiles = True

    def __init__(self, rows: int = 3, cols: int = 2) -> None:
        super().__init__()
        self.rows, self.cols = positive("rows", rows), positive("cols", cols)
        self._label = f"image grid {rows}x{cols}"

    def tile(self, frames: np.ndarray) -> np.ndarray:
        """Frames [T, h, w, 3] as one square image [1, s, s, 3] with grey margins, row after row."""
        if len(frames) != self.rows * self.cols:
            raise PoolingShapeError(
                f"pooling.rows={self.rows} and pooling.cols={self.cols} need frames.num={self.rows * self.cols}, "
                f"got {len(frames)} frames"
            )
        return squared(tiled(frames, self.rows, self.cols))

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        if grid.shape[1] != 1:
            raise PoolingContractError(f"ImageGrid got {grid.shape[1]} frames: they must be tiled before the tower")
        return grid.flatten(1, 3)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return height * width

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"tiles": [[row * self.cols + col for col in range(self.cols)] for row in range(self.rows)]}


class ThumbnailSampling(Pooling):
    """The tokens of a thumbnail [B, H * W, D], then k tokens of all frames: TS-LLaVA (arXiv 2411.11066), section 3.3.

    The thumbnail is one image of equidistant frames, each stretched to its cell: `create_image_grid` in
    llava/model/llava_arch.py of tingyu215/TS-LLaVA, where the image processor takes frames; here it takes the image.
    The tower reads it like a frame. `Subsample` takes the k tokens uniformly. Published: six frames in the thumbnail,
    576 tokens, and 2880 of 50 frames. A clip with fewer frames than the thumbnail shows repeats some of them.

    Raises PoolingContractError if the context lacks a thumbnail of the grid's size.
    """

    needs = frozenset({"thumbnail"})

    def __init__(self, rows: int = 3, cols: int = 2, tokens: int = 2880) -> None:
        super().__init__()
        self.rows, self.cols = positive("rows", rows), positive("cols", cols)
        self.sample = Subsample(tokens)
        self._label = f"thumbnail {rows}x{cols} + {tokens}"

    def shown(self, frames: int) -> list[int]:
        return equidistant(self.rows * self.cols, frames)

    def thumbnail(self, frames: np.ndarray) -> np.ndarray:
        return filled(frames, self.rows, self.cols)

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        image = needed(self, context, "thumbnail", (grid.shape[0], *grid.shape[2:]))
        return torch.cat([image.flatten(1, 2), self.sample(grid)], dim=1)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return height * width + self.sample.num_tokens(frames, height, width)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"thumbnail": self.shown(frames), "sample": self.sample.windows(frames, height, width)}


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
    """Replace frames by tilings of frames, at growing distances: ST-GridPool's temporal gridding.

    ST-GridPool (arXiv 2605.22078, ICLR 2026), `prepare_unit` in llava/model/llava_arch.py and `create_image_grid` in
    prepare_inputs.py of bingjunluo/ST-GridPool. A level with step f takes n = floor(T / f) frames, with indices round(k
    * T / n - 1) for k = 1..n (halves to even). Of each g of them in turn it shrinks the features by area and tiles them
    into one frame, row after row, which replaces the last of the g. A later level may tile the result of an earlier
    one. Published: g = 4 at f = 2, 4 and 8, on 64 frames after the projector, then `NormWeighted` with stride 2.

    The grid keeps its shape, and a level that needs more frames is skipped. The reference computes frame indices in
    float32, which for some T (never if f divides T) takes the other neighbour where k * T / n is a half.

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
