"""Pairs of horizontally adjacent patches merged: the slow path of SlowFast-LLaVA.

The reference pools the flattened, row-major patches of a frame with kernel 2 and stride 2: `spatial_1d_max_pool`
and `spatial_1d_avg_pool` of `temporal_aggregation` in slowfast_llava/llava/model/llava_arch.py of
apple/ml-slowfast-llava. With an even width this merges pairs inside rows. With an odd one it would join the end of
a row with the start of the next and, of an odd number of patches, drop the last; here pairs stay inside rows, and the
last patch of an odd row is kept as it is.
"""

import torch
from torch import Tensor

from videopool.pooling.base import GridPooling, PoolingContext, one_of

MODES = ("max", "avg")


class Horizontal(GridPooling):
    """Halve the width of every frame, rounded up: the last patch of an odd row has no neighbour and stays.

    Args:
        mode: "max" or "avg" of a pair.

    Raises:
        PoolingShapeError: there is no such mode.
    """

    def __init__(self, mode: str = "max") -> None:
        super().__init__()
        self.mode = one_of("mode", mode, MODES)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, -(-width // 2)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        pairs_in_row = grid.shape[3] // 2
        width = 2 * pairs_in_row
        pairs = grid[:, :, :, :width].unflatten(3, (pairs_in_row, 2))  # [B, T, H, W // 2, 2, D]
        pooled = pairs.amax(4) if self.mode == "max" else pairs.mean(4)
        return torch.cat([pooled, grid[:, :, :, width:]], dim=3)

    @property
    def label(self) -> str:
        return f"horizontal {self.mode}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        _, _, cells = self.out_shape(frames, height, width)
        return {"width": [(2 * i, min(2 * i + 2, width)) for i in range(cells)]}
