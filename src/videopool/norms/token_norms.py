"""Tokens of a clip: their norms, their likeness between frames, and their places in a frame.

Norms and likeness are computed in float32 at least. For norms, each token is divided by its largest component first, so
that neither squares nor high powers overflow.
"""

import math

import numpy as np
import torch
from torch import Tensor

from videopool.norms.errors import NormsError
from videopool.pooling.base import precise

LEAST = 0.25  # share of a clip's patches that count as of low texture
CHUNK = 2**17  # components looked at together: with more, they leave a CPU's cache


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
    for some in flat.split(max(1, CHUNK // flat.shape[-1])):
        values = precise(some)
        largest = values.abs().amax(dim=-1, keepdim=True)
        scale = largest.where(largest > 0, torch.ones_like(largest))
        parts.append(torch.linalg.vector_norm(values / scale, p, dim=-1) * largest[:, 0])
    return torch.cat(parts).view(tokens.shape[:-1])


def frame_cosines(grid: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and counts [T, T] of cosines between the tokens of two frames of a grid [T, H, W, D] at equal positions.

    `lengths` [T, H, W] are the tokens' Euclidean norms. Tokens of norm 0 or with a value that is not finite count in no
    pair.
    """
    frames, dim = len(grid), grid.shape[-1]
    lengths = lengths.flatten(1)
    usable = lengths.isfinite() & (lengths > 0)
    sums = torch.zeros(frames, frames, dtype=torch.float64)
    positions = max(1, CHUNK // (frames * dim))
    tokens = grid.flatten(1, 2)
    for some, own, seen in zip(*(each.split(positions, 1) for each in (tokens, lengths, usable)), strict=True):
        units = precise(some) / own.unsqueeze(-1)
        if not seen.all():
            units = units.where(seen.unsqueeze(-1), torch.zeros_like(units))
        sums += (units.flatten(1) @ units.flatten(1).T).double().cpu()
    counts = usable.double()
    return sums, (counts @ counts.T).cpu()


def border(height: int, width: int) -> np.ndarray:
    """[H, W] true for the outermost ring of cells."""
    cells = np.ones((height, width), bool)
    cells[1:-1, 1:-1] = False
    return cells


def centre(height: int, width: int) -> np.ndarray:
    """[H, W] true for cells with their middle in the middle half of both axes."""
    y = np.abs(np.arange(height) + 0.5 - height / 2) <= height / 4
    x = np.abs(np.arange(width) + 0.5 - width / 2) <= width / 4
    return y[:, None] & x


def patch_texture(pixels: Tensor, patch: int) -> Tensor:
    """Standard deviation [M, H*W] of the pixels of each patch: variance in each channel, mean, square root.

    Pixels [M, 3, S, S] are preprocessed for the tower, which sets the unit; those at the right and lower edge that fill
    no patch are left out, as by the tower. `patch` is a side in pixels.
    """
    cells = pixels.float().unfold(2, patch, patch).unfold(3, patch, patch)  # [M, 3, H, W, patch, patch]
    return cells.var(dim=(4, 5), correction=0).mean(dim=1).sqrt().flatten(1)


def low_texture(texture: np.ndarray) -> np.ndarray:
    """[T, H, W] true for the quarter of a clip's patches with least texture, and for ties with the last of them."""
    return texture <= np.quantile(texture, LEAST, method="inverted_cdf")


def as_feature(texture: Tensor, extra: int) -> Tensor:
    """Texture [M, H*W] as one feature [M, C + H*W, 1], 0 for the C tokens before the patches."""
    return torch.nn.functional.pad(texture, (extra, 0)).unsqueeze(-1)
