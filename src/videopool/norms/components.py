"""Components of tokens: massive activations, and the sink dimensions of RMS-normed tokens.

RMS-normed, a token is x / sqrt(mean of x_i^2), as the language model's norms leave it but for their weights. Its phi is
the largest size of its sink dimensions (arXiv 2503.03321). Here the sink dimensions of a clip are those in which an
RMS-normed token of it is largest; the paper takes those of the language model's first token.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from videopool.norms.token_norms import CHUNK
from videopool.pooling.base import precise


@dataclass(frozen=True)
class Components:
    """Sizes of the components of a clip's tokens [N, D], N and D at least 1."""

    tokens: Tensor  # [N, D]
    median: float  # of the sizes; the lower one of an even number
    largest: np.ndarray  # [N] of each token
    sink_dimensions: np.ndarray  # [S], the first has the largest
    phi: np.ndarray  # [N]

    def massive(self, cutoff: float) -> np.ndarray:
        """[D] how many tokens have a component above a cutoff in each dimension."""
        rows = torch.from_numpy(np.flatnonzero(self.largest > cutoff)).to(self.tokens.device)  # few or none
        return (precise(self.tokens[rows]).abs() > cutoff).sum(0).cpu().numpy()


def components(tokens: Tensor, lengths: Tensor, count: int) -> Components:
    """Look at tokens [N, D], finite and not 0, of Euclidean norms [N], with so many sink dimensions, at most D."""
    sizes, rms = precise(tokens).abs(), (lengths / tokens.shape[-1] ** 0.5).unsqueeze(1)
    rows = max(1, CHUNK // tokens.shape[-1])
    pairs = zip(sizes.split(rows), rms.split(rows), strict=True)
    peaks = torch.stack([(some / scale).amax(0) for some, scale in pairs]).amax(0)
    # A stable order: equal dimensions in the order of their numbers.
    dimensions = np.argsort(-peaks.cpu().numpy(), kind="stable")[:count]
    largest, phi = sizes.amax(1), (sizes[:, dimensions.tolist()] / rms).amax(1)
    every = sizes.flatten().cpu().numpy()
    middle = (every.size - 1) // 2
    every.partition(middle)  # in place: sizes are not needed any more
    return Components(tokens, float(every[middle]), largest.cpu().numpy(), dimensions, phi.cpu().numpy())
