"""Tokens in another order: what is left if time, or place, is taken away and all else is kept.

The order is drawn from a seed for the size of the grid, the same in all clips of that size, and is never the one
that was, unless there is but one.
"""

from typing import ClassVar

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, whole
from videopool.pooling.intervention import Intervention


class _Shuffle(Intervention):
    """What both have: a seed, an order drawn from it, and the name of what is put in that order."""

    axis: ClassVar[str]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = whole("seed", seed)

    def order(self, count: int) -> list[int]:
        """A permutation of so many places; of all but the identity each is equally likely."""
        generator = torch.Generator().manual_seed(self.seed)
        order = list(range(count))
        while order == list(range(count)) and count > 1:
            order = torch.randperm(count, generator=generator).tolist()
        return order

    @property
    def label(self) -> str:
        return f"shuffle {self.axis} seed {self.seed}"


class ShuffleTime(_Shuffle):
    """Frames in another order.

    Args:
        seed: of the order.

    Raises:
        PoolingShapeError: seed is no integer of at least 0.
    """

    axis = "time"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid[:, self.order(grid.shape[1])]

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"order": self.order(frames)}


class ShuffleSpace(_Shuffle):
    """Patches of each frame in another order, the same in all frames: what moves still moves, but in pieces.

    Args:
        seed: of the order.

    Raises:
        PoolingShapeError: seed is no integer of at least 0.
    """

    axis = "space"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        height, width = grid.shape[2:4]
        return grid.flatten(2, 3)[:, :, self.order(height * width)].unflatten(2, (height, width))

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"order": self.order(height * width)}
