"""The blind control: the language model is shown nothing and answers from the question's words alone.

What it scores is what answers can be guessed by, the first thing to subtract from what seeing is worth; benchmarks of
visual question answering have reported it from the beginning (arXiv 1505.00468, "language alone").
"""

from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext


class Blind(Pooling):
    """No visual tokens: [B, T, H, W, D] -> [B, 0, D].

    What a family writes behind a clip's visual tokens, as LLaVA-OneVision's newline, still stands there.
    """

    blind = True

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid.flatten(1, 3)[:, :0]  # an empty part of the grid: gradients are zero, and not missing

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return 0

    @property
    def label(self) -> str:
        return "blind"
