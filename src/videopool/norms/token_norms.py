"""Norms of tokens, and likeness of tokens between frames, computed in float32 at least.

Each token is divided by its largest component first, so that neither squares nor high powers overflow.
"""

import math

import torch
from torch import Tensor

from videopool.norms.errors import NormsError
from videopool.pooling.base import precise

CHUNK = 4096  # tokens converted to float32 at once


def power(value: object) -> float:
    """The p of an Lp norm. Raises NormsError unless it is a number above 0, or infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value) or value <= 0:
        raise NormsError(f"job.p={value!r}: give a number above 0, or inf")
    return float(value)


def token_norms(tokens: Tensor, p: float = 2.0) -> Tensor:
    """Lp norms [...] of tokens [..., D], on the tokens' device.

    (sum |x_i|^p)^(1/p); the largest |x_i| for p = inf. Below p = 1 this is no norm, but still a size.
    The norm of a token with a NaN or an infinite component is not finite.
    """
    flat = tokens.reshape(-1, tokens.shape[-1])
    parts = []
    for chunk in flat.split(CHUNK):
        values = precise(chunk)
        largest = values.abs().amax(dim=-1, keepdim=True)
        scale = largest.where(largest > 0, torch.ones_like(largest))
        parts.append(torch.linalg.vector_norm(values / scale, p, dim=-1) * largest[:, 0])
    return torch.cat(parts).view(tokens.shape[:-1])


def frame_cosines(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and counts [T, T] of cosines between the tokens of two frames at equal positions.

    Args:
        grid: [T, H, W, D]. Tokens of zeros or with a value that is not finite count in no pair.
    """
    sums = torch.zeros(len(grid), len(grid), dtype=torch.float64)
    counts = torch.zeros_like(sums)
    for row in grid.unbind(1):  # a row of positions at a time, to bound the memory
        values = precise(row)
        largest = values.abs().amax(dim=-1, keepdim=True)
        usable = largest.isfinite() & (largest > 0)
        values = (values / largest).where(usable, torch.zeros_like(values))
        lengths = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        units = (values / lengths.where(usable, torch.ones_like(lengths))).flatten(1)
        sums += (units @ units.T).double().cpu()
        seen = usable[..., 0].double()
        counts += (seen @ seen.T).cpu()
    return sums, counts
