"""Power of a study: the smallest difference that its samples reliably detect."""

from collections.abc import Sequence

import numpy as np

from videopool.results.statistics import LEAST_CLIPS

LEVEL = 0.05  # two-sided
POWER = 0.8
STEPS = 1000  # candidate differences


def detectable_difference(
    sizes: Sequence[int], correlation: float, flipped: float, comparisons: int = 1
) -> float | None:
    """Smallest difference, 0..1, of two paired accuracies found with 80 % power at a two-sided level of 5 %.

    The difference of a sample is -1, 0 or 1, and 0 unless exactly one point is right, so its variance is the share of
    such samples, `flipped`, less the squared difference (Connor, Biometrics 43, 1987). Correlation r of differences
    widens the variance of a clip of m samples to m (1 + (m - 1) r). The test is Student's test of paired_difference
    with the expected degrees of freedom; its power is that of the noncentral t distribution. Holm's correction makes
    the smallest p-value pass level / comparisons.

    sizes: samples per clip. None if there are too few clips, even if all flips go one way.
    """
    from scipy.special import nctdtr, stdtrit

    m = np.asarray(sizes, dtype=float)
    if len(m) < LEAST_CLIPS:
        return None
    tried = flipped * np.arange(1, STEPS + 1) / STEPS
    variance = flipped - tried**2
    widened = m * (1 + (m - 1) * correlation)
    error = np.sqrt(variance * widened.sum()) / m.sum()
    freedom = _freedom(m, widened, flipped)
    critical = stdtrit(freedom, 1 - LEVEL / 2 / comparisons)
    with np.errstate(divide="ignore"):
        power = 1 - nctdtr(freedom, tried * np.sqrt(1 - tried**2) / error, critical)
    enough = np.flatnonzero(power >= POWER)
    return float(tried[enough[0]]) if len(enough) else None


def _freedom(m: np.ndarray, widened: np.ndarray, flipped: float) -> float:
    """Expected degrees of freedom of statistics.spread: few if few samples flip."""
    tails = 3 + np.maximum(0.0, 1 / flipped - 3) * widened / m**2  # kurtosis of a clip's sum
    few = 2 * widened.sum() ** 2 / np.sum(tails * widened**2) - 1
    return float(np.clip(few, 1.0, max(1.0, m.sum() ** 2 / np.sum(m**2) - 1)))
