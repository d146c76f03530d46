"""Adaptive pooling: each output cell averages (or maximises) one window of the patch grid.

Windows along an axis of n cells pooled to m: cell i covers [floor(i*n/m), ceil((i+1)*n/m)).
They overlap when m does not divide n. PLLaVA (arXiv 2404.16994), section 3.3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError

MODES = ("avg", "max")


def axis_windows(size: int, cells: int) -> list[tuple[int, int]]:
    """Half-open windows [start, end) of each output cell along one axis."""
    return [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]


def pool_axis(grid: Tensor, axis: int, cells: int, mode: str) -> Tensor:
    """Pool one axis of a grid to a number of cells."""
    size = grid.shape[axis]
    if cells == size:
        return grid
    if size % cells == 0:
        split = grid.unflatten(axis, (cells, size // cells))
        return split.mean(axis + 1) if mode == "avg" else split.amax(axis + 1)
    parts = (grid.narrow(axis, start, end - start) for start, end in axis_windows(size, cells))
    return torch.stack([p.mean(axis) if mode == "avg" else p.amax(axis) for p in parts], dim=axis)


class Adaptive(GridPooling):
    """Pool a patch grid to a fixed shape.

    A window is a box, so its mean (or maximum) is taken one axis after another.

    Args:
        shape: output (frames, height, width); null keeps an axis as it is. An axis shorter than asked is
            kept as it is too: a clip with fewer frames than asked keeps them all, each once.
        mode: "avg" or "max".

    Raises:
        PoolingShapeError: shape is not three positive integers or nulls, or there is no such mode.
    """

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12), mode: str = "avg") -> None:
        super().__init__()
        text = f"pooling.shape must be three positive integers (frames, height, width) or null, got {shape!r}"
        if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence) or len(shape) != 3:
            raise PoolingShapeError(text)
        for size in shape:
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise PoolingShapeError(text)
        if mode not in MODES:
            raise PoolingShapeError(f"pooling.mode={mode!r}: choose one of {', '.join(MODES)}")
        self.shape = tuple(shape)
        self.mode = mode

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        out = [
            size if asked is None else min(asked, size)
            for asked, size in zip(self.shape, (frames, height, width), strict=True)
        ]
        return out[0], out[1], out[2]

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        for axis, cells in enumerate(self.out_shape(*grid.shape[1:4]), start=1):
            grid = pool_axis(grid, axis, cells, self.mode)
        return grid

    @property
    def label(self) -> str:
        sizes = "x".join(name if size is None else str(size) for name, size in zip("THW", self.shape, strict=True))
        return f"adaptive {'' if self.mode == 'avg' else self.mode + ' '}{sizes}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        out = self.out_shape(frames, height, width)
        return {
            name: axis_windows(size, cells)
            for name, size, cells in zip(("frames", "height", "width"), (frames, height, width), out, strict=True)
        }
