"""Pairs of horizontally adjacent patches merged: the slow path of SlowFast-LLaVA.

The reference pools the flattened, row-major patches of a frame with kernel 2 and stride 2: `spatial_1d_max_pool`
and `spatial_1d_avg_pool` of `temporal_aggregation` in slowfast_llava/llava/model/llava_arch.py of
apple/ml-slowfast-llava. With an even width this merges pairs inside rows. With an odd one it would join the end of
a row with the start of the next, which leaves no grid, so that is refused here.
"""

from torch import Tensor

from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError, one_of

MODES = ("max", "avg")


class Horizontal(GridPooling):
    """Halve the width of every frame.

    Args:
        mode: "max" or "avg" of a pair.

    Raises:
        PoolingShapeError: there is no such mode, or a grid's width is odd.
    """

    def __init__(self, mode: str = "max") -> None:
        super().__init__()
        self.mode = one_of("mode", mode, MODES)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        if width % 2:
            raise PoolingShapeError(
                f"pooling.mode={self.mode!r} of Horizontal merges pairs in a row: the width of the patch grid must be "
                f"even, got {height} x {width}"
            )
        return frames, height, width // 2

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        _, _, cells = self.out_shape(*grid.shape[1:4])
        pairs = grid.unflatten(3, (cells, 2))  # [B, T, H, W / 2, 2, D]
        return pairs.amax(4) if self.mode == "max" else pairs.mean(4)

    @property
    def label(self) -> str:
        return f"horizontal {self.mode}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        _, _, cells = self.out_shape(frames, height, width)
        return {"width": [(2 * i, 2 * i + 2) for i in range(cells)]}
