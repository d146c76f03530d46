"""The power mean of a window: (mean of x ** p) ** (1 / p), feature by feature; GeM (arXiv 1711.02512, section 3.2).

GeM stands behind a ReLU, and its code lifts all that is below 1e-6 to 1e-6 (`gem` in cirtorch/layers/functional.py
of filipradenovic/cnnimageretrieval-pytorch). Features of a vision tower or a projector have signs, so this drops all
that is negative in them. The other choice keeps the sign: with f(x) = sign(x) |x| ** p it is the inverse of f at the
mean of f(x), which at p = 1 is the mean of anything.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, number, one_of, precise
from videopool.pooling.boxes import BoxPooling, pool_boxes

NEGATIVE = ("clamp", "sign")
LEAST = 1e-6  # of GeM's clamp


def power_mean(boxes: Tensor, p: float) -> Tensor:
    """[B, h, w, K, D] to [B, h, w, D], signs kept.

    Values are divided by the largest of their window first, which changes nothing but keeps powers finite.
    """
    tiny = torch.finfo(boxes.dtype).tiny
    largest = boxes.detach().abs().amax(dim=-2, keepdim=True).clamp(min=tiny)
    scaled = boxes / largest
    mean = (scaled.sign() * scaled.abs().clamp(min=tiny).pow(p)).mean(dim=-2)
    return mean.sign() * mean.abs().clamp(min=tiny).pow(1 / p) * largest.squeeze(-2)


class GeneralisedMean(BoxPooling):
    """The power mean of each feature over each window: 1 is the mean, and a growing p tends to the maximum.

    Args:
        shape: output (frames, height, width), as of `Adaptive`.
        p: the power, above 0; GeM's default is 3.
        negative: "clamp" lifts values below 1e-6 to it, as GeM does; "sign" keeps signs.

    Raises:
        PoolingShapeError: shape is not three positive integers or nulls, p is not above 0, or there is no such
            way with negative values.
    """

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12), p: float = 3.0, negative: str = "clamp") -> None:
        super().__init__(shape)
        self.p = number("p", p, 0, above=True)
        self.negative = one_of("negative", negative, NEGATIVE)
        self.limits = (LEAST,) if negative == "clamp" else ()

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        def reduce(boxes: Tensor) -> Tensor:
            values = precise(boxes)
            values = values.clamp(min=LEAST) if self.negative == "clamp" else values
            return power_mean(values, self.p).to(boxes.dtype)

        return pool_boxes([grid], self.out_shape(*grid.shape[1:4]), reduce)

    @property
    def label(self) -> str:
        return f"generalised mean {self.p:g} {'' if self.negative == 'clamp' else 'sign '}{self.sizes}"
