"""Scores with intervals. Samples of one clip are not independent, so clips are what is resampled.

The cluster bootstrap draws clips with replacement and recomputes the ratio of sums (Davison and Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8). Its percentiles are the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95
_BLOCK = 1 << 24  # numbers held at once while resampling


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        value: the mean, 0..1 for scores, -1..1 for differences.
        low, high: bounds of the 95 % interval.
        n: samples; clusters: clips.
        p: two-sided bootstrap p-value against zero, for differences.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    p: float | None = None


def _resampled_means(values: np.ndarray, clusters: Sequence[object], seed: int) -> tuple[np.ndarray, int]:
    _, place = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    count = int(place.max()) + 1
    sums = np.bincount(place, weights=values, minlength=count)
    sizes = np.bincount(place, minlength=count).astype(float)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, RESAMPLES, max(1, _BLOCK // count)):
        rows = min(RESAMPLES - start, max(1, _BLOCK // count))
        times = rng.multinomial(count, np.full(count, 1 / count), size=rows)
        means.append(times @ sums / (times @ sizes))
    return np.concatenate(means), count


def mean_interval(values: Sequence[float], clusters: Sequence[object], seed: int = 0) -> Estimate:
    """Mean of values with a 95 % interval, clustered.

    Args:
        values: one a sample.
        clusters: the clip of each sample.
        seed: of the resampling.

    Raises:
        ValueError: no values, or not as many clusters.
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0 or array.size != len(clusters):
        raise ValueError("as many clusters as values are needed, and at least one")
    means, count = _resampled_means(array, clusters, seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(array.mean()), float(low), float(high), int(array.size), count)


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[object], seed: int = 0
) -> Estimate:
    """Mean of first - second over the same samples, with a 95 % interval and p-value, clustered.

    Args:
        first, second: scores of the same samples in the same order.
        clusters: the clip of each sample.

    Raises:
        ValueError: the two are not equally long.
    """
    if len(first) != len(second):
        raise ValueError("paired scores must be of the same samples")
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    estimate = mean_interval(difference.tolist(), clusters, seed)
    means, _ = _resampled_means(difference, clusters, seed)
    below, above = float((means <= 0).mean()), float((means >= 0).mean())
    p = min(1.0, max(2 * min(below, above), 1 / RESAMPLES))
    return Estimate(estimate.value, estimate.low, estimate.high, estimate.n, estimate.clusters, p)


def clustered_standard_error(values: Sequence[float], clusters: Sequence[object]) -> float:
    """Cluster-robust standard error of a mean, with the C / (C - 1) correction; a check of the bootstrap.

    sqrt(C / (C - 1) * sum over clips of (sum of residuals)^2) / n (Liang and Zeger, Biometrika 73, 1986).
    """
    array = np.asarray(values, dtype=float)
    _, place = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(place, weights=array - array.mean())
    count = len(sums)
    if count < 2:
        return float("nan")
    return float(np.sqrt(count / (count - 1) * np.sum(sums**2)) / array.size)
