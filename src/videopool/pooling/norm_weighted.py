"""Windows averaged with weights that grow with the tokens' norms: ST-GridPool's norm-based spatial pooling.

ST-GridPool (arXiv 2605.22078, ICLR 2026), `SoftmaxWeightedL2NormPool2d` in prepare_inputs.py of
bingjunluo/ST-GridPool: the weight of a token is the softmax, over its window, of ||x||_p / D ** (1 / p), which at
p = 2 is the root mean square of its features. There the norm is multiplied by `temp`, here it is divided by the
temperature; published are 1 and p = 2, on each frame with kernel and stride 2, behind the projector.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, PoolingShapeError, number, positive, precise
from videopool.pooling.boxes import BoxPooling, pool_boxes, weighted_mean


def lp_norms(values: Tensor, p: float) -> Tensor:
    """Lp norms [..., 1] of tokens [..., D]; above p = 2 divided by their largest value first, which bounds powers."""
    if p <= 2:
        return torch.linalg.vector_norm(values, ord=p, dim=-1, keepdim=True)
    largest = values.detach().abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return torch.linalg.vector_norm(values / largest, ord=p, dim=-1, keepdim=True) * largest


class NormWeighted(BoxPooling):
    """The mean of each window, weighted by the softmax of its tokens' norms.

    A token of zeros counts with norm 0. A NaN in a window makes all features of its cell NaN.

    Args:
        shape: output (frames, height, width), as of `Adaptive`; null: windows by stride.
        stride: windows are squares of so many patches in each frame, side by side, as published. Sizes floor:
            a remainder of the grid is lost. null: windows by shape.
        temperature: of the softmax, above 0; null: infinite, which is the plain mean.
        p: of the norm, at least 1.

    Raises:
        PoolingShapeError: not exactly one of shape and stride, or one of the settings is out of range, or a
            grid is smaller than the stride.
    """

    def __init__(
        self,
        shape: Sequence[int | None] | None = None,
        stride: int | None = None,
        temperature: float | None = 1.0,
        p: float = 2.0,
    ) -> None:
        super().__init__((None, None, None) if shape is None else shape)
        if (shape is None) == (stride is None):
            raise PoolingShapeError(f"say one of pooling.shape and pooling.stride, got {shape!r} and {stride!r}")
        self.stride = None if stride is None else positive("stride", stride)
        self.temperature = None if temperature is None else number("temperature", temperature, 0, above=True)
        self.p = number("p", p, 1)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        if self.stride is None:
            return super().out_shape(frames, height, width)
        if min(height, width) < self.stride:
            raise PoolingShapeError(f"pooling.stride={self.stride} is larger than the patch grid, {height} x {width}")
        return frames, height // self.stride, width // self.stride

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        out = self.out_shape(*grid.shape[1:4])
        if self.stride is not None:
            grid = grid[:, :, : out[1] * self.stride, : out[2] * self.stride]
        scale = 0.0 if self.temperature is None else grid.shape[-1] ** (-1 / self.p) / self.temperature
        scores = lp_norms(precise(grid), self.p) * scale
        return pool_boxes([grid, scores], out, weighted_mean)

    @property
    def label(self) -> str:
        heat = "inf" if self.temperature is None else f"{self.temperature:g}"
        power = "" if self.p == 2 else f" p{self.p:g}"
        return f"norm weighted t{heat}{power} {self.sizes if self.stride is None else f'stride {self.stride}'}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        if self.stride is None:
            return super().windows(frames, height, width)
        _, rows, cols = self.out_shape(frames, height, width)
        return {
            name: [(i * self.stride, (i + 1) * self.stride) for i in range(cells)]
            for name, cells in (("height", rows), ("width", cols))
        }
