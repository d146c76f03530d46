"""Interventions: poolings that change tokens and keep the grid's shape, for a chain before a pooling.

A token's norm is its L2 norm at the stage where the pooling acts, computed in float32 at least; its direction is the
token divided by its norm. A token of zeros has no direction. What is beside the grid, the context, stays as it is.
"""

import torch
from torch import Tensor

from videopool.pooling.base import GridPooling, precise


def norms_of(grid: Tensor) -> Tensor:
    """Norms [..., 1] of tokens [..., D]."""
    return torch.linalg.vector_norm(precise(grid), dim=-1, keepdim=True)


def scaled(grid: Tensor, factors: Tensor) -> Tensor:
    """Tokens [..., D] times factors [..., 1], in the tokens' precision."""
    return (precise(grid) * factors).to(grid.dtype)


class Intervention(GridPooling):
    """A pooling that keeps the shape of the grid."""

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, width
