"""Windows averaged with weights: the softmax of a score of each token over its window."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import PoolingContext, PoolingShapeError, precise
from videopool.pooling.boxes import BoxPooling, pool_boxes
from videopool.pooling.checks import above_zero, needed, number
from videopool.pooling.per_frame import Strided


def weighted_mean(boxes: Tensor, scores: Tensor) -> Tensor:
    """Boxes [B, h, w, K, D] and scores [B, h, w, K, 1] to their mean [B, h, w, D], weighted by the scores' softmax."""
    return (boxes.to(scores.dtype) * scores.softmax(dim=-2)).sum(dim=-2).to(boxes.dtype)


def lp_norms(values: Tensor, p: float) -> Tensor:
    """Lp norms [..., 1] of tokens [..., D]; above p = 2 divided by their largest value first, which bounds powers."""
    if p <= 2:
        return torch.linalg.vector_norm(values, ord=p, dim=-1, keepdim=True)
    largest = values.detach().abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return torch.linalg.vector_norm(values / largest, ord=p, dim=-1, keepdim=True) * largest


class NormWeighted(BoxPooling):
    """The mean of each window, weighted by the softmax of norms: ST-GridPool's norm-based spatial pooling.

    ST-GridPool (arXiv 2605.22078, ICLR 2026), `SoftmaxWeightedL2NormPool2d` in prepare_inputs.py of
    bingjunluo/ST-GridPool: weights are the softmax, over the window, of ||x||_p / D ** (1 / p), for p = 2 the root mean
    square. The reference multiplies by `temp`; here the temperature divides. Published are 1 and p = 2, on each frame
    with kernel and stride 2, after the projector. A NaN in a window makes all features of its cell NaN.

    Args:
        shape: output (frames, height, width), as of `Adaptive`; null: windows by stride.
        stride: windows are squares of so many patches in each frame, as published, and as of `Strided`: sizes floor,
            the grid's remainder is lost. null: windows by shape.
        temperature: of the softmax, above 0; null: infinite, the plain mean.
        p: of the norm, at least 1.

    Raises PoolingShapeError unless exactly one of shape and stride is given, or for a grid smaller than the stride.
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
        self.stride = stride
        if stride is not None:
            self.target, self.sizes = Strided(stride), f"stride {stride}"
        self.temperature = above_zero("temperature", temperature)
        self.p = number("p", p, 1)
        self._label = f"norm weighted t{self.temperature:g}{'' if p == 2 else f' p{p:g}'} {self.sizes}"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        out = self.out_shape(*grid.shape[1:4])
        if self.stride is not None:
            grid = grid[:, :, : out[1] * self.stride, : out[2] * self.stride]
        scores = lp_norms(precise(grid), self.p) * (grid.shape[-1] ** (-1 / self.p) / self.temperature)
        return pool_boxes([grid, scores], out, weighted_mean)


class TextGuided(BoxPooling):
    """The mean of each window, weighted by the softmax of likeness to the prompt: PPLLaVA (arXiv 2411.02327).

    `LLaVACLIP3DMultiModalProjector` in ppllava/models/llava_projector.py and `weighted_adaptive_avg_pool3d_unfold` in
    ppllava/models/utils.py of farewellthree/PPLLaVA: s is the cosine of a patch and the prompt, times CLIP's logit
    scale (100); a is the softmax of s over the clip; weights are the softmax of a / temperature (0.01) over the window.
    Published: 32 frames, windows of 2 x 3 x 3, so 16 x 8 x 8 = 1024 tokens of 24 x 24 patches. PPLLaVA compares in
    CLIP's space: patches after CLIP's last layer norm and visual projection, prompts after its text tower. Here both
    are compared in the space of the grid, and the provider of the prompt chooses the space.

    Visual tokens depend on the prompt. A token of zeros has cosine 0. A NaN makes its whole clip NaN, because the first
    softmax runs over the clip.

    Args:
        shape: output (frames, height, width), as of `Adaptive`.
        scale: of the cosines, at least 0.
        temperature: of the softmax in a window, above 0; null: infinite, the plain mean.

    Raises PoolingContractError if the context lacks a prompt of the grid's batch and dim.
    """

    needs = frozenset({"text"})

    def __init__(
        self, shape: Sequence[int | None] = (16, 8, 8), scale: float = 100.0, temperature: float | None = 0.01
    ) -> None:
        super().__init__(shape)
        self.scale = number("scale", scale, 0)
        self.temperature = above_zero("temperature", temperature)
        self._label = f"text guided t{self.temperature:g}{'' if scale == 100 else f' scale {scale:g}'} {self.sizes}"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        text = needed(self, context, "text", (grid.shape[0], grid.shape[-1]))
        values = precise(grid)
        prompt = functional.normalize(text.to(values), dim=-1)[:, None, None, :, None]  # [B, 1, 1, D, 1]
        cosines = functional.normalize(values, dim=-1) @ prompt  # [B, T, H, W, 1]
        shares = (self.scale * cosines).flatten(1).softmax(dim=1).view_as(cosines)
        return pool_boxes([grid, shares * (1 / self.temperature)], self.out_shape(*grid.shape[1:4]), weighted_mean)
