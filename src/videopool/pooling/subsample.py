"""Some of the tokens, unchanged and in order."""

import torch
from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext, precise
from videopool.pooling.checks import one_of, positive, whole
from videopool.pooling.tiling import equidistant


class Subsample(Pooling):
    """Keep k of the N tokens of a clip, in order. A clip with fewer keeps all.

    Args:
        tokens: k.
        mode: "uniform" spreads them evenly over the clip, token round(i * (N - 1) / (k - 1)) for i = 0..k-1, as
            `sample_tokens` in llava/model/llava_arch.py of tingyu215/TS-LLaVA (arXiv 2411.11066); "random" draws
            without replacement, equally for all clips of a size; "lowest_norm" and "highest_norm" keep by L2 norm,
            of equal norms the earlier tokens, with NaN as the highest norm.
        seed: of "random".
    """

    def __init__(self, tokens: int, mode: str = "uniform", seed: int = 0) -> None:
        super().__init__()
        self.tokens = positive("tokens", tokens)
        self.mode = one_of("mode", mode, ("uniform", "random", "lowest_norm", "highest_norm"))
        self.seed = whole("seed", seed)
        self._label = f"subsample {tokens} {mode}{f' seed {seed}' if mode == 'random' else ''}"

    def places(self, count: int) -> list[int] | None:
        """The kept of so many tokens; None if their norms decide."""
        if self.tokens >= count:
            return list(range(count))
        if self.mode == "uniform":
            return equidistant(self.tokens, count)
        if self.mode == "random":
            generator = torch.Generator().manual_seed(self.seed)
            return sorted(torch.randperm(count, generator=generator)[: self.tokens].tolist())
        return None

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        tokens = grid.flatten(1, 3)
        places = self.places(tokens.shape[1])
        if places is not None:
            return tokens[:, places]
        norms = torch.linalg.vector_norm(precise(tokens.detach()), dim=-1)  # [B, N]
        order = norms.argsort(dim=1, descending=self.mode == "highest_norm", stable=True)
        kept = order[:, : self.tokens].sort(dim=1).values
        return torch.take_along_dim(tokens, kept.unsqueeze(-1), dim=1)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return min(self.tokens, frames * height * width)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        places = self.places(frames * height * width)
        return {} if places is None else {"kept": places}
