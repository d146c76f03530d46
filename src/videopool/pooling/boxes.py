"""Poolings that need all tokens of a window at once, and so cannot pool one axis after another.

They sort a window, raise it to a power, or weigh its tokens by the softmax of a score. Windows are those of adaptive
pooling, and boxes: a cell reads some frames, rows and columns. Along an axis windows have at most two lengths; cells
with windows of equal lengths are pooled together.

Shapes: grid [B, T, H, W, D]; boxes [B, h, w, K, D] of one output frame, with the K tokens of each cell's window.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.adaptive import Adaptive, Strided, axis_windows
from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError, fixed, precise
from videopool.pooling.checks import above_zero, needed, number, one_of

LEAST = 1e-6  # of GeM's clamp


def cells_by_length(size: int, cells: int) -> list[tuple[list[int], list[list[int]]]]:
    """Cells of one axis by window length: their indices, and the places that each of them reads."""
    groups: dict[int, tuple[list[int], list[list[int]]]] = {}
    for cell, (start, end) in enumerate(axis_windows(size, cells)):
        indices, read = groups.setdefault(end - start, ([], []))
        indices.append(cell)
        read.append(list(range(start, end)))
    return list(groups.values())


def boxes_of(frames: Tensor, rows: Sequence[Sequence[int]], cols: Sequence[Sequence[int]]) -> Tensor:
    """Frames [B, t, H, W, C] to [B, h, w, K, C], where h cells read the rows and w cells the columns given."""
    for axis, read in ((3, cols), (2, rows)):
        flat = [place for window in read for place in window]
        if flat != list(range(frames.shape[axis])):
            frames = frames.index_select(axis, torch.tensor(flat, device=frames.device))
        frames = frames.unflatten(axis, (len(read), len(read[0])))
    return frames.permute(0, 2, 4, 1, 3, 5, 6).flatten(3, 5)  # from [B, t, h, kh, w, kw, C]


def pool_boxes(grids: Sequence[Tensor], out: tuple[int, int, int], reduce: Callable[..., Tensor]) -> Tensor:
    """Pool grids [B, T, H, W, C], each with its own C, to [B, T', H', W', D], one output frame at a time.

    `out` is (T', H', W'); `reduce` takes the boxes of each grid to [B, h, w, D].
    """
    _, frames, height, width = grids[0].shape[:4]
    pooled = []
    for start, end in axis_windows(frames, out[0]):
        parts = [
            (ys, xs, reduce(*(boxes_of(grid[:, start:end], rows, cols) for grid in grids)))
            for ys, rows in cells_by_length(height, out[1])
            for xs, cols in cells_by_length(width, out[2])
        ]
        frame = parts[0][2]
        if len(parts) > 1:
            frame = frame.new_empty(frame.shape[0], *out[1:], frame.shape[-1])
            for ys, xs, part in parts:
                frame[:, torch.tensor(ys)[:, None], torch.tensor(xs)] = part
        pooled.append(frame)
    return torch.stack(pooled, dim=1)


class BoxPooling(GridPooling):
    """A pooling over whole adaptive windows. A subclass defines `reduce`, or `pool` if it needs more than the boxes.

    The output has a shape (frames, height, width), as of `Adaptive`.
    """

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12)) -> None:
        super().__init__()
        self.target: GridPooling = Adaptive(shape)
        self.sizes = self.target.sizes  # the shape in labels

    def reduce(self, boxes: Tensor) -> Tensor:
        """[B, h, w, K, D] -> [B, h, w, D]."""
        raise NotImplementedError

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return pool_boxes([grid], self.out_shape(*grid.shape[1:4]), self.reduce)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return self.target.out_shape(frames, height, width)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return self.target.windows(frames, height, width)


def trimmed_mean(boxes: Tensor, cut: int) -> Tensor:
    """[B, h, w, K, D] to [B, h, w, D]: the mean without the cut smallest and the cut largest values.

    A NaN in a window makes that feature NaN, as in the plain mean.
    """
    if cut == 0:
        return boxes.mean(dim=-2)
    ordered = boxes.sort(dim=-2).values
    mean = ordered[..., cut : boxes.shape[-2] - cut, :].mean(dim=-2)
    return mean.masked_fill(ordered[..., -1, :].isnan(), torch.nan)  # NaN is sorted last, and would be cut off


class Median(BoxPooling):
    """The median of each feature over each window; of an even number of tokens the mean of the middle two."""

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12)) -> None:
        super().__init__(shape)
        self._label = f"median {self.sizes}"

    def reduce(self, boxes: Tensor) -> Tensor:
        return trimmed_mean(boxes, (boxes.shape[-2] - 1) // 2)


class TrimmedMean(BoxPooling):
    """The mean of each feature over each window of K tokens without its floor(trim * K) smallest and largest values.

    The share trim is cut off at each end, at least 0 and less than 0.5; 0 is the mean.
    """

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12), trim: float = 0.25) -> None:
        super().__init__(shape)
        self.trim = number("trim", trim, 0, 0.5)
        if self.trim == 0.5:
            raise PoolingShapeError("pooling.trim=0.5 leaves nothing of a window; the median is pooling=median")
        self._label = f"trimmed mean {trim:g} {self.sizes}"

    def reduce(self, boxes: Tensor) -> Tensor:
        return trimmed_mean(boxes, int(self.trim * boxes.shape[-2]))


class GeneralisedMean(BoxPooling):
    """The power mean (mean of x ** p) ** (1 / p) of each feature over each window: GeM (arXiv 1711.02512, section 3.2).

    1 is the mean, and a growing p tends to the maximum. GeM follows a ReLU, and its code lifts values below 1e-6 to
    1e-6 (`gem` in cirtorch/layers/functional.py of filipradenovic/cnnimageretrieval-pytorch). Features of a tower or
    a projector have signs, and this drops their negative part. "sign" keeps it: with f(x) = sign(x) |x| ** p it is
    the inverse of f at the mean of f(x).

    Args:
        p: the power, above 0; GeM's default is 3.
        negative: "clamp" as GeM; "sign" keeps signs.
    """

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12), p: float = 3.0, negative: str = "clamp") -> None:
        super().__init__(shape)
        self.p = number("p", p, 0, above=True)
        self.negative = one_of("negative", negative, ("clamp", "sign"))
        self.limits = (LEAST,) if negative == "clamp" else ()
        self._label = f"generalised mean {p:g} {'' if negative == 'clamp' else 'sign '}{self.sizes}"

    def reduce(self, boxes: Tensor) -> Tensor:
        values = precise(boxes)
        if self.negative == "clamp":
            values = values.clamp(min=LEAST)
        tiny = torch.finfo(values.dtype).tiny
        largest = values.detach().abs().amax(dim=-2, keepdim=True).clamp(min=tiny)
        unit = values / largest  # keeps powers finite
        mean = (unit.sign() * unit.abs().clamp(min=tiny).pow(self.p)).mean(dim=-2)
        return (mean.sign() * mean.abs().clamp(min=tiny).pow(1 / self.p) * largest.squeeze(-2)).to(boxes.dtype)


def weighted_mean(boxes: Tensor, scores: Tensor) -> Tensor:
    """Boxes [B, h, w, K, D] and scores [B, h, w, K, 1] to their mean [B, h, w, D], weighted by the scores' softmax."""
    return (boxes.to(scores.dtype) * fixed(scores.softmax(dim=-2))).sum(dim=-2).to(boxes.dtype)


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
