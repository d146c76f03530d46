"""Where in a frame a patch is, and how much there is to see in it."""

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
    """[H, W] true for cells whose middle lies in the middle half of both axes."""
    y = np.abs(np.arange(height) + 0.5 - height / 2) <= height / 4
    x = np.abs(np.arange(width) + 0.5 - width / 2) <= width / 4
    return y[:, None] & x


def patch_texture(pixels: Tensor, patch: int) -> Tensor:
    """Standard deviation [M, H*W] of the pixels of each patch: variance in each channel, mean, square root.

    Args:
        pixels: [M, 3, S, S] as the tower sees them; its unit is that of preprocessed pixels. What does not
            fill a patch at the right and lower edge is left out, as by the tower.
        patch: side of a patch in pixels.
    """
    cells = pixels.float().unfold(2, patch, patch).unfold(3, patch, patch)  # [M, 3, H, W, patch, patch]
    return cells.var(dim=(4, 5), correction=0).mean(dim=1).sqrt().flatten(1)


def low_texture(texture: np.ndarray) -> np.ndarray:
    """[T, H, W] true for the quarter of a clip's patches with least texture, with those that equal its last."""
    return texture <= np.quantile(texture, LEAST, method="inverted_cdf")


def as_feature(texture: Tensor, extra: int) -> Tensor:
    """Texture [M, H*W] as one more feature [M, C + H*W, 1], 0 for the C features before the patches."""
    return torch.nn.functional.pad(texture, (extra, 0)).unsqueeze(-1)
