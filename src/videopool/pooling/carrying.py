"""Features of other levels, pooled by the map that a pooling takes at a grid: the same selection, the same weights.

Token n of a pooling is the sum over patches p of W[n, p] * patch[p]. W may depend on the grid (which tokens stay, what
they are merged with), but is one number for all features. Differentiation forward along a level gives W * level for the
cost of pooling once more: a choice has no derivative, and `fixed` holds weights that follow norms or likeness.

Shapes: grids and levels [B, T, H, W, D]; thumbnails [B, H, W, D]; tokens [B, N, D].
"""

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.autograd import forward_ad

from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError
from videopool.pooling.contract import blamed

TOLERANCE = 1e-3  # of the largest value, where two ways to carry a level must agree


def carried(
    pooling: Pooling, grid: Tensor, context: PoolingContext, levels: Sequence[Tensor], thumbnails: Sequence[Tensor] = ()
) -> list[Tensor]:
    """The tokens of levels by the map that the pooling takes at the grid, which has their shape; no gradients.

    Thumbnails are by level, of a pooling whose context has one. Raises PoolingContractError if there is no such map.
    """
    with torch.inference_mode(False), torch.no_grad():  # inference tensors have no derivatives
        own = {field.name: getattr(context, field.name) for field in fields(context)}
        plain = PoolingContext(**{name: None if value is None else value.clone() for name, value in own.items()})
        given = [None] * len(levels) if plain.thumbnail is None else list(thumbnails)
        own_grid = grid.detach().clone()
        return [_along(pooling, own_grid, plain, *pair) for pair in zip(levels, given, strict=True)]


def _along(pooling: Pooling, grid: Tensor, context: PoolingContext, level: Tensor, thumbnail: Tensor | None) -> Tensor:
    """The derivative of the pooling at a grid along a level."""
    with forward_ad.dual_level():
        if thumbnail is not None and context.thumbnail is not None:
            thumbnail = thumbnail.detach().clone().to(context.thumbnail)
            context = replace(context, thumbnail=forward_ad.make_dual(context.thumbnail, thumbnail))
        dual = forward_ad.make_dual(grid, level.detach().clone().to(grid))
        with blamed(pooling, "forward"):
            try:
                tokens = pooling(dual, context).to(grid.dtype)
            except NotImplementedError as error:  # an operation without forward differentiation
                raise _no_map(pooling) from error
        tangent = forward_ad.unpack_dual(tokens).tangent
        return torch.zeros_like(tokens) if tangent is None else tangent.clone()


def check_map(pooling: Pooling, grid: Tensor, context: PoolingContext) -> None:
    """Raises PoolingContractError unless a pooling has a map at a grid: one weight of a patch for all features.

    A level whose features change places and signs is carried to tokens that change alike.
    """
    draw = torch.Generator().manual_seed(0)
    level = torch.randn(grid.shape, generator=draw, dtype=torch.float64).to(grid)
    thumbnail = [] if context.thumbnail is None else [torch.randn(context.thumbnail.shape, generator=draw).to(grid)]
    signs = torch.randint(0, 2, grid.shape[-1:], generator=draw).to(grid) * 2 - 1

    def turned(values: Tensor) -> Tensor:
        return values.roll(1, -1) * signs

    (plain,) = carried(pooling, grid, context, [level], thumbnail)
    (other,) = carried(pooling, grid, context, [turned(level)], [turned(one) for one in thumbnail])
    apart = (turned(plain) - other).abs()
    if apart.numel() and not float(apart.max()) <= TOLERANCE * float(plain.abs().max().clamp(min=1e-6)):
        raise _no_map(pooling)


def _no_map(pooling: Pooling) -> PoolingContractError:
    return PoolingContractError(
        f"pooling {pooling.label}: the model adds features of earlier layers of its tower to the visual tokens "
        "(DeepStack), pooled by the same map; this pooling has none, as it treats features differently or mixes them: "
        "take a compression, or means"
    )
