"""Poolings that show frames in one image before the tower."""

import numpy as np
import torch
from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, PoolingShapeError
from videopool.pooling.checks import needed, positive
from videopool.pooling.subsample import Subsample
from videopool.pooling.tiling import equidistant, filled, tiled

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
