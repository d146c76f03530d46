"""Places in a frame: border, centre, and patches of low texture."""

import numpy as np
import torch
from torch import Tensor

LEAST = 0.25  # share of a clip's patches that count as of low texture


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

    Args:
        pixels: [M, 3, S, S] preprocessed for the tower, which sets the unit. Pixels at the right and lower edge that
            fill no patch are left out, as by the tower.
        patch: side of a patch in pixels.
    """
    cells = pixels.float().unfold(2, patch, patch).unfold(3, patch, patch)  # [M, 3, H, W, patch, patch]
    return cells.var(dim=(4, 5), correction=0).mean(dim=1).sqrt().flatten(1)


def low_texture(texture: np.ndarray) -> np.ndarray:
    """[T, H, W] true for the quarter of a clip's patches with least texture, and for ties with the last of them."""
    return texture <= np.quantile(texture, LEAST, method="inverted_cdf")


def as_feature(texture: Tensor, extra: int) -> Tensor:
    """Texture [M, H*W] as one feature [M, C + H*W, 1], 0 for the C tokens before the patches."""
    return torch.nn.functional.pad(texture, (extra, 0)).unsqueeze(-1)
