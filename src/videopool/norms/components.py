"""Components of tokens: massive activations, and the sink dimensions of RMS-normed tokens.

RMS-normed, a token is x / sqrt(mean of x_i^2), as the language model's norms leave it but for their weights. Its phi is
the largest size of its sink dimensions (arXiv 2503.03321). Here the sink dimensions of a clip are those in which an
RMS-normed token of it is largest; the paper takes those of the language model's first token.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from videopool.pooling.base import precise


@dataclass(frozen=True)
class Components:
    """Sizes of the components of a clip's tokens [N, D], N and D at least 1."""

    sizes: np.ndarray  # [N, D] of the components
    median: float  # of them; the lower one of an even number
    largest: np.ndarray  # [N] of each token
    sink_dimensions: np.ndarray  # [S], the first has the largest
    phi: np.ndarray  # [N]

    def massive(self, cutoff: float) -> np.ndarray:
        """[D] how many tokens have a component above a cutoff in each dimension."""
        rows = self.sizes[self.largest > cutoff]  # few or none
        return (rows > cutoff).sum(0)


def components(tokens: Tensor, count: int) -> Components:
    """Look at tokens [N, D], finite and not 0, with so many sink dimensions, at most D."""
    sizes = precise(tokens).abs().cpu().numpy()
    largest = sizes.max(1)
    # Squares must not overflow.
    rms = np.sqrt(np.square(sizes / largest[:, None]).mean(1)) * largest
    normed = sizes / rms[:, None]
    # A stable order: equal dimensions in the order of their numbers.
    dimensions = np.argsort(-normed.max(0), kind="stable")[:count]
    middle = (sizes.size - 1) // 2
    median = float(np.partition(sizes, middle, axis=None)[middle])
    return Components(sizes, median, largest, dimensions, normed[:, dimensions].max(1))
