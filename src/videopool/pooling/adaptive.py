"""Poolings along axes of the patch grid: adaptive, by a stride, and of pairs of neighbours.

Adaptive pooling of an axis of n cells to m: output cell i covers [floor(i*n/m), ceil((i+1)*n/m)). Windows overlap if m
does not divide n. PLLaVA (arXiv 2404.16994), section 3.3.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError
from videopool.pooling.checks import flag, one_of, positive

MODES = ("avg", "max")


def axis_windows(size: int, cells: int) -> list[tuple[int, int]]:
    """Half-open windows [start, end) of the output cells of one axis. Some repeat if there are more cells than size."""
    return [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]


def pool_axes(grid: Tensor, cells: Mapping[int, int], mode: str) -> Tensor:
    """Pool axes of a grid, each to a number of cells, one after another. Half precision is rounded once, at the end."""
    pooled = grid
    for axis, count in cells.items():
        pooled = _pool_axis(pooled, axis, count, mode)
    return pooled.to(grid.dtype)


def _pool_axis(grid: Tensor, axis: int, cells: int, mode: str) -> Tensor:
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


def padded_frames(frames: int, wanted: int | None) -> list[int]:
    """Frame indices of a clip padded to the wanted length as in PLLaVA's code.

    Each frame is repeated floor(wanted / frames) + 1 times, then the clip is cut, so the tail may be lost: 3 frames for
    4 become 0, 0, 1, 1, and of 8 frames for 16 the first 6 remain. `forward` of the projector in
    models/pllava/modeling_pllava.py of magic-research/PLLaVA.
    """
    if wanted is None or frames >= wanted:
        return list(range(frames))
    return [i // (wanted // frames + 1) for i in range(wanted)]


class Adaptive(GridPooling):
    """Pool a patch grid to a fixed shape. Windows are boxes, so each axis is pooled in turn.

    Args:
        shape: output (frames, height, width); null keeps an axis, and an axis shorter than asked is kept too: a clip
            with fewer frames keeps each of them once.
        mode: "avg" or "max".
        expand: stretch an axis shorter than asked by the same windows, so that cells repeat, as torch's
            AdaptiveAvgPool3d does.
        pad_frames: pad a clip of fewer frames to so many first, see `padded_frames`; null: never.
    """

    def __init__(
        self,
        shape: Sequence[int | None] = (16, 12, 12),
        mode: str = "avg",
        expand: bool = False,
        pad_frames: int | None = None,
    ) -> None:
        super().__init__()
        three = isinstance(shape, Sequence) and not isinstance(shape, str) and len(shape) == 3
        if not three or not all(size is None or (type(size) is int and size > 0) for size in shape):
            raise PoolingShapeError(
                f"pooling.shape must be three positive integers (frames, height, width) or null, got {shape!r}"
            )
        self.shape = tuple(shape)
        self.sizes = "x".join(axis if size is None else str(size) for axis, size in zip("THW", shape, strict=True))
        self.mode = one_of("mode", mode, MODES)
        self.expand = flag("expand", expand)
        self.pad_frames = None if pad_frames is None else positive("pad_frames", pad_frames)
        words = ["adaptive", "" if mode == "avg" else mode, self.sizes, "expand" if expand else ""]
        self._label = " ".join(word for word in [*words, f"pad{pad_frames}" if pad_frames else ""] if word)

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

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        """Windows of each axis; for a padded clip those of time count `padded_frames`."""
        out, padded = self.out_shape(frames, height, width), padded_frames(frames, self.pad_frames)
        axes = zip(("frames", "height", "width"), (len(padded), height, width), out, strict=True)
        windows: dict[str, object] = {name: axis_windows(size, cells) for name, size, cells in axes}
        return windows if len(padded) == frames else {"padded_frames": padded, **windows}


class Strided(GridPooling):
    """Pool the height and width of each frame by a stride: LLaVA-NeXT-Video, LLaVA-OneVision.

    avg, max: kernel = stride without padding; sizes floor, and the grid's remainder is lost.
    bilinear: interpolation to ceil(H / stride) x ceil(W / stride), align_corners=False.
    `get_2dPool` in llava/model/llava_arch.py of LLaVA-VL/LLaVA-NeXT, `apply_pooling` in transformers'
    models/llava_onevision/modeling_llava_onevision.py.

    Args:
        stride: patches per cell along each axis.
        mode: "avg", "max" or "bilinear".

    Raises PoolingShapeError (avg, max) for a grid smaller than the stride.
    """

    def __init__(self, stride: int = 2, mode: str = "avg") -> None:
        super().__init__()
        self.stride = positive("stride", stride)
        self.mode = one_of("mode", mode, ("avg", "max", "bilinear"))
        self._label = f"strided {stride} {mode}"

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        if self.mode == "bilinear":
            return frames, -(-height // self.stride), -(-width // self.stride)
        if min(height, width) < self.stride:
            raise PoolingShapeError(f"pooling.stride={self.stride} is larger than the patch grid, {height} x {width}")
        return frames, height // self.stride, width // self.stride

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        size = self.out_shape(*grid.shape[1:4])[1:]
        images = grid.flatten(0, 1).movedim(-1, 1)  # [B * T, D, H, W]
        if self.mode == "avg":
            pooled = functional.avg_pool2d(images, self.stride)
        elif self.mode == "max":
            pooled = functional.max_pool2d(images, self.stride)
        else:
            pooled = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return pooled.movedim(1, -1).unflatten(0, grid.shape[:2])

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        """Half-open windows of each axis; for bilinear the place in the grid that each cell reads."""
        rows, cols = self.out_shape(frames, height, width)[1:]
        windows: dict[str, object] = {}
        for name, size, cells in (("height", height, rows), ("width", width, cols)):
            if self.mode == "bilinear":
                windows[name] = [max(0.0, (i + 0.5) * size / cells - 0.5) for i in range(cells)]
            else:
                windows[name] = [(i * self.stride, (i + 1) * self.stride) for i in range(cells)]
        return windows


class Horizontal(GridPooling):
    """Merge pairs of horizontal neighbours by mode "max" or "avg": the slow path of SlowFast-LLaVA.

    `spatial_1d_max_pool` and `spatial_1d_avg_pool` of `temporal_aggregation` in
    slowfast_llava/llava/model/llava_arch.py of apple/ml-slowfast-llava pool the flattened, row-major patches of a frame
    with kernel 2 and stride 2. For an odd width they pair the end of a row with the start of the next and may drop the
    last patch; here pairs stay in their row, and the last patch of an odd row remains: the width halves, rounded up.
    """

    def __init__(self, mode: str = "max") -> None:
        super().__init__()
        self.mode = one_of("mode", mode, ("max", "avg"))
        self._label = f"horizontal {mode}"

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, -(-width // 2)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        width = grid.shape[3] // 2 * 2
        pairs = grid[:, :, :, :width].unflatten(3, (width // 2, 2))  # [B, T, H, W // 2, 2, D]
        pooled = pairs.amax(4) if self.mode == "max" else pairs.mean(4)
        return torch.cat([pooled, grid[:, :, :, width:]], dim=3)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"width": [(start, min(start + 2, width)) for start in range(0, width, 2)]}
