"""Statistics of ranks."""

import numpy as np


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's correlation of two series [N], ties sharing their mean rank; None if one of them is constant."""
    from scipy.stats import rankdata  # slow to import, and not every measurement needs it

    if first.size < 2:
        return None
    a, b = (ranks - ranks.mean() for ranks in (rankdata(first), rankdata(second)))
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else None


def gini(values: np.ndarray) -> float:
    """Gini coefficient of positive numbers [N]: 0 if all are equal, 1 - 1/N if one has all."""
    ordered, n = np.sort(values), values.size
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))
