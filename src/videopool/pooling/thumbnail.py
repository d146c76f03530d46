"""A thumbnail of a few frames, and tokens sampled from all: TS-LLaVA (arXiv 2411.11066), section 3.3.

The thumbnail is one image on which equidistant frames are tiled; its tokens come first, then those that `Subsample`
takes uniformly of all frames' tokens. Published: six frames in the thumbnail, 576 tokens, and 2880 of 50 frames'.
"""

import numpy as np
import torch
from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError
from videopool.pooling.image_grid import ImageGrid
from videopool.pooling.subsample import Subsample


class ThumbnailSampling(Pooling):
    """The tokens of a thumbnail [B, H * W, D], then k tokens of all frames.

    The thumbnail is seen by the tower like a frame, and reaches the pooling through its context. A clip of fewer frames
    than the thumbnail shows has some of them shown more than once.

    Args:
        rows, cols: of frames in the thumbnail.
        tokens: k.

    Raises:
        PoolingShapeError: one of them is no positive integer.
        PoolingContractError: the context has no thumbnail of the grid's size.
    """

    needs = frozenset({"thumbnail"})

    def __init__(self, rows: int = 3, cols: int = 2, tokens: int = 2880) -> None:
        super().__init__()
        self.image = ImageGrid(rows, cols)
        self.sample = Subsample(tokens)

    def shown(self, frames: int) -> list[int]:
        """Which of so many frames are in the thumbnail: equidistant, the first and the last among them."""
        count = self.image.rows * self.image.cols
        return [round(place * (frames - 1) / max(1, count - 1)) for place in range(count)]

    def thumbnail(self, frames: np.ndarray) -> np.ndarray:
        """The frames that are shown, uint8 [rows * cols, h, w, 3], as one square image [1, s, s, 3]."""
        return self.image.tile(frames)

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        image = context.thumbnail if context else None
        wanted = (grid.shape[0], *grid.shape[2:])
        if image is None or image.shape != wanted:
            got = "none" if image is None else tuple(image.shape)
            raise PoolingContractError(f"ThumbnailSampling needs a thumbnail {wanted} beside its grid, got {got}")
        return torch.cat([image.flatten(1, 2), self.sample(grid)], dim=1)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return height * width + self.sample.num_tokens(frames, height, width)

    @property
    def label(self) -> str:
        return f"thumbnail {self.image.rows}x{self.image.cols} + {self.sample.tokens}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"thumbnail": self.shown(frames), "sample": self.sample.windows(frames, height, width)}
