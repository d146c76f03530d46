"""Which patches a pooling's tokens are made of, for any pooling, by differentiation.

The share of patch p in token n is W[n, p] = mean over features d of d token[n, d] / d patch[p, d]: the weight of an
average; for a maximum the share of features in which the patch is the largest; 1 or 0 for a selection. W is never held:
W u and its transpose times v are derivatives along vectors of random signs s in features. The mean over d of
s[d] * (J (u s))[d] is W u if each feature depends on itself alone; norms or likeness couple features and add noise of
the order 1 / D (Hutchinson's estimator of a trace).

Shapes: grid [1, T, H, W, D]; values of patches [T, H, W, C]; values of tokens [N, C].
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, precise
from videopool.pooling.contract import checked

DRAWS = 2  # of signs; their disagreement reveals a pooling that mixes features
TOLERANCE = 0.25  # of that disagreement
SPREAD = 0.05  # variance of places, of which a patch and its neighbour have more if they share a token
NOTHING = 0.05  # of the median token's share in patches: a token with less is made of something else


class PatchTrace:
    """The map W of a pooling at one grid [1, T, H, W, D]; tokens made of the context have no patches.

    Attributes:
        tokens: [N, D] pooled from the grid.
        shares: [N] total share of patches in each token.
        read: [N] true for tokens made of patches.

    Raises PoolingContractError if the pooling breaks its contract, makes no token, mixes features (as learned queries
    do), or cannot be differentiated.
    """

    def __init__(self, pooling: Pooling, grid: Tensor, context: PoolingContext | None = None) -> None:
        untraceable = PoolingContractError(
            f"pooling {pooling.label} cannot be shown on frames: its tokens cannot be traced to patches feature by "
            "feature"
        )
        self._grid = precise(grid.detach().clone()).requires_grad_()
        # Only plain attention can be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            tokens = checked(pooling, self._grid, context)
            if not tokens.shape[1]:
                raise PoolingContractError(f"pooling {pooling.label} leaves no visual tokens that could be shown")
            if not tokens.requires_grad:
                raise untraceable
            along = torch.zeros_like(tokens, requires_grad=True)
            # The derivative of this with respect to `along` is the forward derivative of the pooling.
            backward = torch.autograd.grad(tokens, self._grid, along, create_graph=True)[0]
        self._forward = partial(_estimate, partial(torch.autograd.grad, backward, along, retain_graph=True))
        self._transposed = partial(_estimate, partial(torch.autograd.grad, tokens, self._grid, retain_graph=True))
        self.tokens = tokens.detach()[0]
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (DRAWS, grid.shape[-1]), generator=generator) * 2 - 1
        self._signs = list(signs.to(self._grid))
        ones = torch.ones_like(self._grid[0, ..., :1])
        shares = torch.stack([self._forward([sign], ones)[:, 0] for sign in self._signs])
        apart, size = (shares[0] - shares[1]).abs().sum(), shares.abs().sum() / DRAWS
        if not size > 0 or not apart <= TOLERANCE * size:
            raise untraceable
        self.shares = shares.mean(0)
        self.read = self.shares > NOTHING * self.shares[self.shares > 0].median()

    def of_tokens(self, values: Tensor) -> Tensor:
        """Values of patches [T, H, W, C] averaged over each token's patches: [N, C], NaN for a token of no patch."""
        sums = self._forward(self._signs, values.to(self._grid))
        return (sums / self.shares[:, None]).masked_fill(~self.read[:, None], torch.nan)

    def of_patches(self, values: Tensor) -> Tensor:
        """Values of tokens [N, C] averaged over each patch's tokens by its share in them: [T, H, W, C].

        NaN for a patch in no token.
        """
        values = values.to(self._grid).masked_fill(~self.read[:, None], 0.0)
        sums = self._transposed(self._signs, values)
        shares = self._transposed(self._signs, self.read[:, None].to(values))
        return (sums / shares).masked_fill(shares <= NOTHING * NOTHING * shares.max(), torch.nan)

    def alone(self) -> Tensor:
        """[N] the flat place of each token that is made of one patch, -1 for another."""
        axes = [torch.arange(size, dtype=torch.float32) for size in self._grid.shape[1:4]]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(self._grid)  # [T, H, W, 3]
        means = self.of_tokens(torch.cat([places, places**2], dim=-1))
        middle, square = means.split(3, dim=-1)
        one = ((square - middle**2).abs() < SPREAD).all(dim=-1)
        t, y, x = middle.nan_to_num().round().long().unbind(-1)
        height, width = self._grid.shape[2:4]
        return torch.where(one, (t * height + y) * width + x, -1)


def _estimate(derivative: Callable[[Tensor], Sequence[Tensor]], signs: Sequence[Tensor], values: Tensor) -> Tensor:
    """W, or its transpose, times values [..., C], from derivatives along vectors of signs."""
    columns = []
    for column in values.unbind(-1):
        moved = [(derivative((column.unsqueeze(-1) * sign)[None])[0][0] * sign).mean(-1) for sign in signs]
        columns.append(torch.stack(moved).mean(0))
    return torch.stack(columns, dim=-1)
