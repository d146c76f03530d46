"""Per-frame two-dimensional pooling with a stride.

avg, max: kernel = stride, no padding, so the sizes floor and a remainder of the grid is lost;
bilinear: interpolation to ceil(H / stride) x ceil(W / stride), align_corners=False.
LLaVA-NeXT-Video and LLaVA-OneVision: `get_2dPool` in llava/model/llava_arch.py of LLaVA-VL/LLaVA-NeXT,
`apply_pooling` in transformers' models/llava_onevision/modeling_llava_onevision.py.
"""

from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError, one_of, positive

MODES = ("avg", "max", "bilinear")


class Strided(GridPooling):
    """Pool the height and width of every frame by a stride.

    Args:
        stride: patches per output cell along each axis.
        mode: "avg", "max" or "bilinear".

    Raises:
        PoolingShapeError: stride is no positive integer, there is no such mode, or (avg, max) a grid is
            smaller than the stride.
    """

    def __init__(self, stride: int = 2, mode: str = "avg") -> None:
        super().__init__()
        self.stride = positive("stride", stride)
        self.mode = one_of("mode", mode, MODES)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        if self.mode == "bilinear":
            return frames, -(-height // self.stride), -(-width // self.stride)
        if min(height, width) < self.stride:
            raise PoolingShapeError(f"pooling.stride={self.stride} is larger than the patch grid, {height} x {width}")
        return frames, height // self.stride, width // self.stride

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        _, height, width = self.out_shape(*grid.shape[1:4])
        images = grid.flatten(0, 1).movedim(-1, 1)  # [B * T, D, H, W]
        if self.mode == "avg":
            pooled = functional.avg_pool2d(images, self.stride)
        elif self.mode == "max":
            pooled = functional.max_pool2d(images, self.stride)
        else:
            pooled = functional.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
        return pooled.movedim(1, -1).unflatten(0, grid.shape[:2])

    @property
    def label(self) -> str:
        return f"strided {self.stride} {self.mode}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        """Half-open windows of each axis, or with bilinear the place in the grid that each cell is read at."""
        out = self.out_shape(frames, height, width)
        found: dict[str, object] = {}
        for name, size, cells in zip(("height", "width"), (height, width), out[1:], strict=True):
            if self.mode == "bilinear":
                found[name] = [max(0.0, (i + 0.5) * size / cells - 0.5) for i in range(cells)]
            else:
                found[name] = [(i * self.stride, (i + 1) * self.stride) for i in range(cells)]
        return found
