"""Adaptive pooling: each output cell averages (or maximises) one window of the patch grid.

Windows along an axis of n cells pooled to m: cell i covers [floor(i*n/m), ceil((i+1)*n/m)).
They overlap when m does not divide n. PLLaVA (arXiv 2404.16994), section 3.3.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError, one_of, positive

MODES = ("avg", "max")


def axis_windows(size: int, cells: int) -> list[tuple[int, int]]:
    """Half-open windows [start, end) of each output cell along one axis. More cells than size: some repeat."""
    return [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]


def pool_axis(grid: Tensor, axis: int, cells: int, mode: str) -> Tensor:
    """Pool one axis of a grid to a number of cells. Means of half precision are float32, see `pool_axes`."""
    size = grid.shape[axis]
    if cells == size:
        return grid
    precision = torch.promote_types(grid.dtype, torch.float32)

    def pooled(values: Tensor, along: int) -> Tensor:
        return values.mean(along, dtype=precision) if mode == "avg" else values.amax(along)

    if size % cells == 0:
        return pooled(grid.unflatten(axis, (cells, size // cells)), axis + 1)
    parts = (grid.narrow(axis, start, end - start) for start, end in axis_windows(size, cells))
    return torch.stack([pooled(part, axis) for part in parts], dim=axis)


def pool_axes(grid: Tensor, cells: Mapping[int, int], mode: str) -> Tensor:
    """Pool axes of a grid, each to a number of cells, one after another. Half precision is rounded once, at the end."""
    pooled = grid
    for axis, count in cells.items():
        pooled = pool_axis(pooled, axis, count, mode)
    return pooled.to(grid.dtype)


def padded_frames(frames: int, wanted: int | None) -> list[int]:
    """Frame indices of a clip that is padded to the wanted length as PLLaVA's code does it.

    Each frame is repeated floor(wanted / frames) + 1 times and the clip is then cut, so the tail may be lost:
    3 frames for 4 become 0, 0, 1, 1, and of 8 frames for 16 the first 6 are left. `forward` of the projector
    in models/pllava/modeling_pllava.py of magic-research/PLLaVA.
    """
    if wanted is None or frames >= wanted:
        return list(range(frames))
    return [i // (wanted // frames + 1) for i in range(wanted)]


class Adaptive(GridPooling):
    """Pool a patch grid to a fixed shape.

    A window is a box, so its mean (or maximum) is taken one axis after another.

    Args:
        shape: output (frames, height, width); null keeps an axis as it is. An axis shorter than asked is
            kept as it is too: a clip with fewer frames than asked keeps them all, each once.
        mode: "avg" or "max".
        expand: an axis shorter than asked is stretched to the asked size instead, by the same windows; its
            cells repeat. So torch's AdaptiveAvgPool3d does it.
        pad_frames: a clip with fewer frames is first padded to so many, see `padded_frames`; null: never.

    Raises:
        PoolingShapeError: shape is not three positive integers or nulls, there is no such mode, expand is
            neither true nor false, or pad_frames is no positive integer or null.
    """

    def __init__(
        self,
        shape: Sequence[int | None] = (16, 12, 12),
        mode: str = "avg",
        expand: bool = False,
        pad_frames: int | None = None,
    ) -> None:
        super().__init__()
        text = f"pooling.shape must be three positive integers (frames, height, width) or null, got {shape!r}"
        if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence) or len(shape) != 3:
            raise PoolingShapeError(text)
        for size in shape:
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise PoolingShapeError(text)
        if not isinstance(expand, bool):
            raise PoolingShapeError(f"pooling.expand must be true or false, got {expand!r}")
        self.shape = tuple(shape)
        self.mode = one_of("mode", mode, MODES)
        self.expand = expand
        self.pad_frames = None if pad_frames is None else positive("pad_frames", pad_frames)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        sizes = (max(frames, self.pad_frames or 1), height, width)
        out = [
            size if asked is None else asked if self.expand else min(asked, size)
            for asked, size in zip(self.shape, sizes, strict=True)
        ]
        return out[0], out[1], out[2]

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        out, frames = self.out_shape(*grid.shape[1:4]), grid.shape[1]
        if self.pad_frames is not None and frames < self.pad_frames:
            grid = grid[:, padded_frames(frames, self.pad_frames)]
        return pool_axes(grid, dict(enumerate(out, start=1)), self.mode)

    @property
    def label(self) -> str:
        sizes = "x".join(name if size is None else str(size) for name, size in zip("THW", self.shape, strict=True))
        parts = ["adaptive", "" if self.mode == "avg" else self.mode, sizes, "expand" if self.expand else ""]
        return " ".join(p for p in [*parts, f"pad{self.pad_frames}" if self.pad_frames else ""] if p)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        """Windows of each axis; where the clip is padded, those of time count `padded_frames`."""
        out, padded = self.out_shape(frames, height, width), padded_frames(frames, self.pad_frames)
        found: dict[str, object] = {
            name: axis_windows(size, cells)
            for name, size, cells in zip(("frames", "height", "width"), (len(padded), height, width), out, strict=True)
        }
        return found if len(padded) == frames else {"padded_frames": padded, **found}
