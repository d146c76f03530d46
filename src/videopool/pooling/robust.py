"""Means of a window that outliers move little: the median and the trimmed mean, feature by feature.

Windows are those of adaptive pooling. A NaN in a window makes that feature NaN, as in the plain mean.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, PoolingShapeError, number
from videopool.pooling.boxes import BoxPooling, pool_boxes


def trimmed_mean(boxes: Tensor, cut: int) -> Tensor:
    """[B, h, w, K, D] to [B, h, w, D]: the mean without the cut smallest and the cut largest values."""
    if cut == 0:
        return boxes.mean(dim=-2)
    ordered = boxes.sort(dim=-2).values
    mean = ordered[..., cut : boxes.shape[-2] - cut, :].mean(dim=-2)
    return mean.masked_fill(ordered[..., -1, :].isnan(), torch.nan)  # NaN is sorted last, and would be cut off


class Median(BoxPooling):
    """The median of each feature over each window; of an even number of tokens the mean of the middle two.

    Args:
        shape: output (frames, height, width), as of `Adaptive`.

    Raises:
        PoolingShapeError: shape is not three positive integers or nulls.
    """

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        out = self.out_shape(*grid.shape[1:4])
        return pool_boxes([grid], out, lambda boxes: trimmed_mean(boxes, (boxes.shape[-2] - 1) // 2))

    @property
    def label(self) -> str:
        return f"median {self.sizes}"


class TrimmedMean(BoxPooling):
    """The mean of each feature over each window without its floor(trim * K) smallest and as many largest values.

    K is the number of tokens in the window. At 0 this is the mean; small windows lose nothing to a small trim.

    Args:
        shape: output (frames, height, width), as of `Adaptive`.
        trim: share of a window cut off at each end, of at least 0 and less than 0.5.

    Raises:
        PoolingShapeError: shape is not three positive integers or nulls, or trim is out of range.
    """

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12), trim: float = 0.25) -> None:
        super().__init__(shape)
        self.trim = number("trim", trim, 0, 0.5)
        if self.trim == 0.5:
            raise PoolingShapeError("pooling.trim=0.5 leaves nothing of a window; the median is pooling=median")

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        out = self.out_shape(*grid.shape[1:4])
        return pool_boxes([grid], out, lambda boxes: trimmed_mean(boxes, int(self.trim * boxes.shape[-2])))

    @property
    def label(self) -> str:
        return f"trimmed mean {self.trim:g} {self.sizes}"
