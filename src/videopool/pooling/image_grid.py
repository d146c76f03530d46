"""Frames tiled into one image before the tower: IG-VLM (arXiv 2403.18406).

`create_grid_view_as_array_from_image_array` in vision_processor/gridview_generator.py of imagegridworth/IG-VLM: row
after row, round(sqrt(n)) frames in a row, so its six frames make three rows of two. Frames are not resized before
they are tiled (they are of one size) and the image goes through the model's own image processor like any other.
"""

import numpy as np
from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, PoolingShapeError, positive
from videopool.pooling.tiling import tiled

GREY = (122, 116, 104)  # CLIP's mean colour


def squared(images: np.ndarray) -> np.ndarray:
    """Images [N, h, w, 3] in the middle of a square [N, s, s, 3]: LLaVA-1.5's `expand2square`.

    A tower that crops to the middle would cut off the outer frames.
    """
    count, height, width, channels = images.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.empty((count, side, side, channels), images.dtype)
    square[:] = np.array(GREY[:channels], images.dtype)
    square[:, top : top + height, left : left + width] = images
    return square


class ImageGrid(Pooling):
    """The tokens of one image that shows all frames. `tile` must have been used before the tower.

    Args:
        rows, cols: of frames in the image.

    Raises:
        PoolingShapeError: rows or cols is no positive integer, or there are not rows * cols frames.
        PoolingContractError: a grid of more than one frame: the frames were not tiled.
    """

    tiles = True

    def __init__(self, rows: int = 3, cols: int = 2) -> None:
        super().__init__()
        self.rows = positive("rows", rows)
        self.cols = positive("cols", cols)

    def tile(self, frames: np.ndarray) -> np.ndarray:
        """Frames [T, h, w, 3] to one square image [1, s, s, 3], row after row, with grey beside them."""
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

    @property
    def label(self) -> str:
        return f"image grid {self.rows}x{self.cols}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"tiles": [[row * self.cols + col for col in range(self.cols)] for row in range(self.rows)]}
