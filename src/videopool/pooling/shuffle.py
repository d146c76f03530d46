"""Tokens in another order: what is left if time, or place, is taken away and all else is kept.

The order is drawn from a seed for the size of the grid, the same in all clips of that size, and is never the one
that was, unless there is but one.
"""

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, whole
from videopool.pooling.intervention import Intervention


def drawn_order(count: int, seed: int) -> list[int]:
    """A permutation of so many places; of all but the identity each is equally likely."""
    generator = torch.Generator().manual_seed(seed)
    order = list(range(count))
    while order == list(range(count)) and count > 1:
        order = torch.randperm(count, generator=generator).tolist()
    return order


class ShuffleTime(Intervention):
    """Frames in another order.

    Args:
        seed: of the order.

    Raises:
        PoolingShapeError: seed is no integer of at least 0.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = whole("seed", seed)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid[:, drawn_order(grid.shape[1], self.seed)]

    @property
    def label(self) -> str:
        return f"shuffle time seed {self.seed}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"order": drawn_order(frames, self.seed)}


class ShuffleSpace(Intervention):
    """Patches of each frame in another order, the same in all frames: what moves still moves, but in pieces.

    Args:
        seed: of the order.

    Raises:
        PoolingShapeError: seed is no integer of at least 0.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = whole("seed", seed)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        height, width = grid.shape[2:4]
        return grid.flatten(2, 3)[:, :, drawn_order(height * width, self.seed)].unflatten(2, (height, width))

    @property
    def label(self) -> str:
        return f"shuffle space seed {self.seed}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"order": drawn_order(height * width, self.seed)}
