"""Which patches a pooling's tokens are made of, whatever the pooling, found by differentiating it.

How much of patch p is in token n is W[n, p] = mean over features d of d token[n, d] / d patch[p, d]. Of an average that
is the patch's weight, of a maximum the share of features in which the patch is the largest, of a selection 1 or 0.
W is never held: W u and its transpose times v are derivatives along vectors of random signs s in features, as the
mean over d of s[d] * (J (u s))[d] is W u if each feature depends on itself alone, and W u but for noise of the
order 1 / D where norms or likeness couple features (Hutchinson's estimator of a trace).

Shapes: grid [1, T, H, W, D]; values of patches [T, H, W, C]; values of tokens [N, C].
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, checked, precise

DRAWS = 2  # of signs; their disagreement tells a pooling that mixes features
TOLERANCE = 0.25  # of that disagreement
NOTHING = 0.05  # of the median token's share in patches: what has less is made of something else


class PatchTrace:
    """The map W of a pooling at one grid.

    Args:
        pooling: at a patch grid, with a context if it needs one.
        grid: [1, T, H, W, D].
        context: what the pooling needs beside the grid; tokens made of it have no patches.

    Attributes:
        tokens: [N, D] what the pooling made of the grid.
        read: [N] true for tokens that are made of patches.

    Raises:
        PoolingContractError: the pooling does not return what it announces, or no token, or patches cannot be followed
            through it, because it mixes features (learned queries do) or cannot be differentiated.
    """

    def __init__(self, pooling: Pooling, grid: Tensor, context: PoolingContext | None = None) -> None:
        self._grid = precise(grid.detach().clone()).requires_grad_()
        # Only plain attention can be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self._tokens = checked(pooling, self._grid, context)
            if not self._tokens.shape[1]:
                raise PoolingContractError(f"pooling {pooling.label} leaves no visual tokens that could be shown")
            self._back = torch.zeros_like(self._tokens, requires_grad=True)
            if not self._tokens.requires_grad:
                raise _untraceable(pooling)
            # The derivative of this with respect to `_back` is the forward derivative of the pooling.
            self._backward = torch.autograd.grad(self._tokens, self._grid, self._back, create_graph=True)[0]
        self.tokens = self._tokens.detach()[0]
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (DRAWS, grid.shape[-1]), generator=generator) * 2 - 1
        self._signs = list(signs.to(self._grid))
        shares = torch.stack([self._forward(torch.ones_like(self._grid[..., :1])[0], (s,))[:, 0] for s in self._signs])
        apart, size = (shares[0] - shares[1]).abs().sum(), shares.abs().sum() / DRAWS
        if not size > 0 or not apart <= TOLERANCE * size:
            raise _untraceable(pooling)
        self.shares = shares.mean(0)  # [N]
        self.read = self.shares > NOTHING * self.shares[self.shares > 0].median()

    def of_tokens(self, values: Tensor) -> Tensor:
        """Values of patches [T, H, W, C] averaged over what each token is made of: [N, C], NaN if of no patch."""
        sums = self._forward(values.to(self._grid), self._signs)
        return (sums / self.shares[:, None]).masked_fill(~self.read[:, None], torch.nan)

    def of_patches(self, values: Tensor) -> Tensor:
        """Values of tokens [N, C] averaged over those that a patch is part of, by its share: [T, H, W, C].

        NaN where a patch is part of none.
        """
        values = values.to(self._grid).masked_fill(~self.read[:, None], 0.0)
        sums = self._transposed(values)
        shares = self._transposed(self.read[:, None].to(values))
        return (sums / shares).masked_fill(shares <= NOTHING * NOTHING * shares.max(), torch.nan)

    def _forward(self, values: Tensor, signs: Sequence[Tensor]) -> Tensor:
        """W times values [T, H, W, C]: [N, C]."""
        columns = []
        for column in values.unbind(-1):
            found = torch.zeros(self._tokens.shape[1:2]).to(self._grid)
            for sign in signs:
                along = (column.unsqueeze(-1) * sign)[None]
                moved = torch.autograd.grad(self._backward, self._back, along, retain_graph=True)[0]
                found = found + (moved[0] * sign).mean(-1) / len(signs)
            columns.append(found)
        return torch.stack(columns, dim=-1)

    def _transposed(self, values: Tensor) -> Tensor:
        """The transpose of W times values [N, C]: [T, H, W, C]."""
        columns = []
        for column in values.unbind(-1):
            found = torch.zeros(self._grid.shape[1:4]).to(self._grid)
            for sign in self._signs:
                along = (column.unsqueeze(-1) * sign)[None].to(self._tokens)
                moved = torch.autograd.grad(self._tokens, self._grid, along, retain_graph=True)[0]
                found = found + (moved[0] * sign).mean(-1) / len(self._signs)
            columns.append(found)
        return torch.stack(columns, dim=-1)


def _untraceable(pooling: Pooling) -> PoolingContractError:
    return PoolingContractError(
        f"pooling {pooling.label} cannot be shown on frames: its tokens cannot be traced to patches feature by feature"
    )
