"""Norms cut or made equal, directions kept: what is left if norms carry something, or too much of it."""

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, PoolingShapeError, number
from videopool.pooling.intervention import Intervention, norms_of, scaled


class ClipNorm(Intervention):
    """Scale tokens whose norm is above a limit down to it. A NaN stays where it is.

    Args:
        max_norm: the limit, above 0; or null.
        quantile: the limit is this quantile of the norms in each clip, linear between two norms, NaN left out;
            in 0..1, or null.

    Raises:
        PoolingShapeError: not exactly one of max_norm and quantile, or it is out of range.
    """

    def __init__(self, max_norm: float | None = None, quantile: float | None = None) -> None:
        super().__init__()
        if (max_norm is None) == (quantile is None):
            raise PoolingShapeError(f"say one of pooling.max_norm and pooling.quantile, got {max_norm!r}, {quantile!r}")
        self.max_norm = None if max_norm is None else number("max_norm", max_norm, 0, above=True)
        self.quantile = None if quantile is None else number("quantile", quantile, 0, 1)
        self.limits = () if self.max_norm is None else (self.max_norm,)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        norms = norms_of(grid)
        if self.max_norm is not None:
            return scaled(grid, (self.max_norm / norms.clamp(min=self.max_norm)))
        assert self.quantile is not None
        limit = norms.flatten(1).nanquantile(self.quantile, dim=1)[:, None, None, None, None]
        above = norms > limit
        return scaled(grid, torch.where(above, limit / norms.where(above, torch.ones_like(norms)), 1.0))

    @property
    def label(self) -> str:
        return f"clip norm {f'q{self.quantile:g}' if self.max_norm is None else f'{self.max_norm:g}'}"


class RescaleNorm(Intervention):
    """Give all tokens one norm: only directions are left. Tokens of zeros stay, and so does a NaN.

    Args:
        norm: the norm, above 0; null: the mean norm of the clip's tokens, those that are not finite left out.

    Raises:
        PoolingShapeError: norm is not above 0.
    """

    def __init__(self, norm: float | None = None) -> None:
        super().__init__()
        self.norm = None if norm is None else number("norm", norm, 0, above=True)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        norms = norms_of(grid)
        finite = norms.where(norms.isfinite(), torch.nan)
        wanted = finite.nanmean(dim=(1, 2, 3), keepdim=True) if self.norm is None else self.norm
        return scaled(grid, wanted / norms.where(norms != 0, torch.ones_like(norms)))

    @property
    def label(self) -> str:
        return f"rescale norm {'mean' if self.norm is None else f'{self.norm:g}'}"
