"""Poolings of the height and width of each frame."""

import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError
from videopool.pooling.checks import one_of, positive


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
