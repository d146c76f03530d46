"""Spearman's rank correlation."""

import numpy as np


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's correlation of two series [N], ties sharing their mean rank; None if one of them is constant."""
    from scipy.stats import rankdata  # slow to import, and not every measurement needs it

    if first.size < 2:
        return None
    a, b = (ranks - ranks.mean() for ranks in (rankdata(first), rankdata(second)))
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else None
