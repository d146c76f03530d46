"""A thumbnail of a few frames, and tokens sampled from all: TS-LLaVA (arXiv 2411.11066), section 3.3.

The thumbnail is one image on which equidistant frames are tiled; its tokens come first, then those that `Subsample`
takes uniformly of all frames' tokens. Published: six frames in the thumbnail, 576 tokens, and 2880 of 50 frames'.

The frames fill the image, each stretched to its cell: `create_image_grid` in llava/model/llava_arch.py of
tingyu215/TS-LLaVA. There they have gone through the image processor before, here the whole image does.
"""

import numpy as np
import torch
from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, positive
from videopool.pooling.subsample import Subsample
from videopool.pooling.tiling import equidistant, filled


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
        self.rows = positive("rows", rows)
        self.cols = positive("cols", cols)
        self.sample = Subsample(tokens)

    def shown(self, frames: int) -> list[int]:
        return equidistant(self.rows * self.cols, frames)

    def thumbnail(self, frames: np.ndarray) -> np.ndarray:
        return filled(frames, self.rows, self.cols)

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
        return f"thumbnail {self.rows}x{self.cols} + {self.sample.tokens}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"thumbnail": self.shown(frames), "sample": self.sample.windows(frames, height, width)}
