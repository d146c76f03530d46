"""Scores with intervals. Samples of one clip are not independent, so clips are what is resampled.

The cluster bootstrap draws clips with replacement and recomputes the ratio of sums (Davison and Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8). Its percentiles are the interval, taken further out as
Student's t is wider than the normal, since the spread is that of a few clips (expanded percentiles: Hesterberg, The
American Statistician 69, 2015).
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
        low, high: bounds of the 95 % interval; NaN where all samples are of one clip, which says nothing of others.
        n: samples; clusters: clips.
        p: two-sided p-value against zero, for differences.
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
    return Estimate(float(array.mean()), *_interval(means, count), int(array.size), count)


def bound(value: float) -> float | None:
    """A bound of an interval for JSON and tables: None where there is no interval."""
    return None if np.isnan(value) else value


def _interval(means: np.ndarray, clusters: int) -> tuple[float, float]:
    """Percentiles of resampled means, as far out as Student's t is for so many clusters."""
    from scipy.special import ndtr, stdtrit  # here and below, since a finished study needs neither

    if clusters < 2:
        return float("nan"), float("nan")
    tail = ndtr(np.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 - LEVEL) / 2))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _p_value(means: np.ndarray, clusters: int) -> float:
    """Two-sided p-value against zero: one less the level of the interval that just reaches it."""
    from scipy.special import ndtri, stdtr

    if clusters < 2:
        return 1.0
    tail = max(min((means <= 0).mean(), (means >= 0).mean()), 0.5 / len(means))
    return float(min(1.0, 2 * stdtr(clusters - 1, min(0.0, ndtri(tail)) * np.sqrt((clusters - 1) / clusters))))


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
    if difference.size == 0 or difference.size != len(clusters):
        raise ValueError("as many clusters as values are needed, and at least one")
    means, count = _resampled_means(difference, clusters, seed)
    interval, p = _interval(means, count), _p_value(means, count)
    return Estimate(float(difference.mean()), *interval, int(difference.size), count, p)


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


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for how many there are (Holm, Scandinavian Journal of Statistics 6, 1979).

    The chance of any false claim among all of them stays below the level. None stays None and does not count.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None and not np.isnan(p))
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[place] = largest
    return corrected
