"""A mark of its time on each frame, without weights, so that a language model can tell early tokens from late ones.

Rotary positions tell how far tokens are apart, and whoever reads from far behind them sees little of it; an image
model has not learned to use even that. Video transformers add a code of time to the tokens of each frame
(TimeSformer, arXiv 2102.05095, learns it). Here it is half a turn in a plane of two fixed directions u and v:

    x[t, h, w] + scale * m * (cos(pi s) u + sin(pi s) v),  s = (t + 0.5) / T,  m the mean norm of the clip's tokens.

Behind an average over time a token has the mean code of what it averages.
"""

import math

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, PoolingContractError, number, precise, whole
from videopool.pooling.intervention import Intervention, norms_of


class FrameTime(Intervention):
    """Add a code of the time to the tokens of each frame.

    The first and the last frame's codes are nearly opposite in u, and those between turn from one to the other. Its
    directions are random and orthogonal, the same for all clips.

    Args:
        scale: norm of the code over the mean norm of the clip's tokens, at least 0.
        seed: of the directions.

    Raises:
        PoolingShapeError: scale is negative or no number, or seed no integer of at least 0.
        PoolingContractError: the grid's dim is 1.
    """

    def __init__(self, scale: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.scale = number("scale", scale, 0)
        self.seed = whole("seed", seed)

    def code(self, frames: int, dim: int) -> Tensor:
        """[T, D] unit vectors in float64."""
        if dim < 2:
            raise PoolingContractError(f"FrameTime turns in a plane, but the grid's dim is {dim}")
        generator = torch.Generator().manual_seed(self.seed)
        u, other = torch.randn(2, dim, generator=generator, dtype=torch.float64)
        u = u / u.norm()
        v = other - (other @ u) * u  # Gram-Schmidt
        v = v / v.norm()
        turn = math.pi * (torch.arange(frames, dtype=torch.float64) + 0.5) / frames
        return turn.cos()[:, None] * u + turn.sin()[:, None] * v

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        values = precise(grid)
        size = self.scale * norms_of(values).mean(dim=(1, 2, 3), keepdim=True)
        code = self.code(grid.shape[1], grid.shape[-1]).to(values)
        return (values + size * code[:, None, None]).to(grid.dtype)

    @property
    def label(self) -> str:
        return f"frame time {self.scale:g}{f' seed {self.seed}' if self.seed else ''}"
