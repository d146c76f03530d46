"""Some of the tokens as they are, in their order.

"uniform" is TS-LLaVA's rule (arXiv 2411.11066), `sample_tokens` in llava/model/llava_arch.py of tingyu215/TS-LLaVA:
token round(i * (N - 1) / (k - 1)) of all N tokens of the clip for i = 0..k-1, first and last among them.
"""

import torch
from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext, one_of, positive, precise, whole

MODES = ("uniform", "random", "lowest_norm", "highest_norm")


class Subsample(Pooling):
    """Keep k tokens of a clip, in their order. A clip with fewer keeps all.

    Args:
        tokens: k.
        mode: "uniform" spreads them evenly over the clip; "random" draws them without replacement, the same in all
            clips of one size; "lowest_norm" and "highest_norm" keep by L2 norm, of equal norms the earlier ones.
            NaN counts as the highest norm.
        seed: of "random".

    Raises:
        PoolingShapeError: tokens is no positive integer, there is no such mode, or seed is no integer of at least 0.
    """

    def __init__(self, tokens: int, mode: str = "uniform", seed: int = 0) -> None:
        super().__init__()
        self.tokens = positive("tokens", tokens)
        self.mode = one_of("mode", mode, MODES)
        self.seed = whole("seed", seed)

    def places(self, count: int) -> list[int] | None:
        """Which of so many tokens are kept; None where their norms decide."""
        kept = min(self.tokens, count)
        if kept == count:
            return list(range(count))
        if self.mode == "uniform":
            return [round(i * (count - 1) / max(1, kept - 1)) for i in range(kept)]
        if self.mode == "random":
            generator = torch.Generator().manual_seed(self.seed)
            return sorted(torch.randperm(count, generator=generator)[:kept].tolist())
        return None

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        tokens = grid.flatten(1, 3)
        places = self.places(tokens.shape[1])
        if places is not None:
            return tokens[:, places]
        norms = torch.linalg.vector_norm(precise(tokens.detach()), dim=-1)  # [B, N]
        order = norms.argsort(dim=1, descending=self.mode == "highest_norm", stable=True)
        kept = order[:, : self.tokens].sort(dim=1).values
        return tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return min(self.tokens, frames * height * width)

    @property
    def label(self) -> str:
        return f"subsample {self.tokens} {self.mode}{f' seed {self.seed}' if self.mode == 'random' else ''}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        places = self.places(frames * height * width)
        return {} if places is None else {"kept": places}
