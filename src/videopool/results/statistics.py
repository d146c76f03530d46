"""Scores and differences with intervals. Samples of one clip are not independent: clips are what varies.

The variance of a mean is cluster-robust (Liang and Zeger, Biometrika 73, 1986), with the small-sample correction CR2
(Bell and McCaffrey, Survey Methodology 28, 2002). The interval is Wilson's (JASA 22, 1927) on the effective sample size
that this variance implies (Korn and Graubard, Survey Methodology 24, 1998), with Student's quantile: it stays within
the bounds of a score, and is honest close to them. A p-value is one less the level of the interval that just reaches
zero, so the two never contradict each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from videopool.results.balance import balanced, shares

LEVEL = 0.95
LEAST_CLIPS = 10  # of fewer, no interval covers what it should
SCORE = (0.0, 1.0)
DIFFERENCE = (-1.0, 1.0)
_ROUNDING = 1e-12

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        value: the mean, 0..1 for scores, -1..1 for differences.
        low, high: bounds of the 95 % interval; NaN where fewer than LEAST_CLIPS clips were asked about.
        n: samples; clusters: clips.
        p: two-sided p-value against zero, for differences; None where there is no interval.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    p: float | None = None


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[object],
    tasks: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    bounds: tuple[float, float] | None = SCORE,
) -> Estimate:
    """Mean of values with a 95 % interval, clustered.

    Args:
        values: one a sample.
        clusters: the clip of each sample.
        tasks: of each sample; needed where there are weights.
        weights: of tasks in the mean, see balanced; None or empty: all samples count alike.
        bounds: the least and the greatest that a value can be; None for values that have no bounds.

    Raises:
        ValueError: no values, or not as many clusters; a mean outside the bounds.
    """
    return estimate(np.asarray([values], dtype=float), clusters, tasks, weights or {}, bounds)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[object],
    tasks: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
) -> Estimate:
    """Mean of first - second over the same samples, with a 95 % interval and p-value, clustered.

    Args:
        first, second: scores, 0..1, of the same samples in the same order.
        clusters, tasks, weights: as mean_interval takes them.

    Raises:
        ValueError: the two are not equally long.
    """
    if len(first) != len(second):
        raise ValueError("paired scores must be of the same samples")
    difference = np.asarray([first], dtype=float) - np.asarray([second], dtype=float)
    return estimate(difference, clusters, tasks, weights or {}, DIFFERENCE)


def estimate(
    table: Array,
    clusters: Sequence[object],
    tasks: Sequence[str],
    weights: Mapping[str, float],
    bounds: tuple[float, float] | None,
) -> Estimate:
    """Mean over the rows of a table [R, n], one row a seed, and over its n samples; see mean_interval.

    Of several rows the variance between their means counts as well, as another source of chance.

    Raises:
        ValueError: as mean_interval.
    """
    if table.size == 0 or table.shape[1] != len(clusters):
        raise ValueError("as many clusters as values are needed, and at least one")
    _, place = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    rows, raw, n = np.array([balanced(row, tasks, weights) for row in table]), table.mean(axis=0), table.shape[1]
    value, count = float(rows.mean()), int(place.max()) + 1
    if count < LEAST_CLIPS:
        return Estimate(value, float("nan"), float("nan"), n, count)
    residuals: np.ndarray = np.bincount(place, weights=rows.mean(axis=0) - value) / n
    share: np.ndarray = np.bincount(place, weights=shares(n, tasks, weights))
    variance, freedom = spread(residuals, share)
    if weights and bounds is not None:
        variance = variance + _unseen(raw, place, tasks, weights, bounds)
    between = float(rows.mean(axis=1).var(ddof=1)) / len(rows) if len(rows) > 1 else 0.0
    low, high, p = interval(np.float64(value), variance, freedom, effective(share), bounds, between, len(rows) - 1)
    return Estimate(value, float(low), float(high), n, count, float(p) if bounds == DIFFERENCE else None)


def _unseen(
    values: Array, place: np.ndarray, tasks: Sequence[str], weights: Mapping[str, float], bounds: tuple[float, float]
) -> float:
    """Variance that tasks add to a weighted mean whose values are all alike, and which therefore show none.

    Of C such clips one more is taken to lie at the further bound.
    """
    names, added = np.asarray(tasks, dtype=object), 0.0
    total = sum(weights[task] for task in set(tasks))
    for task in set(tasks):
        own = values[names == task]
        if np.ptp(own) <= _ROUNDING:
            clips = len(set(place[names == task].tolist()))
            furthest = max(bounds[1] - own[0], own[0] - bounds[0])
            added += (weights[task] / total * furthest) ** 2 / (clips * (clips + 1))
    return added


def effective(shares: Array) -> float:
    """How many clips of equal shares say as much as these, [C]: 1 / sum of squared shares."""
    return float(1 / np.sum(shares**2))


def spread(residuals: Array, shares: Array) -> tuple[Array, Array]:
    """Variance of a mean and the degrees of freedom of that variance, both [...].

    The freedom is Satterthwaite's with the clips' own fourth moments: few where a few clips make all of the variance,
    however many clips there are.

    Args:
        residuals: [..., C] what each clip adds to the error of the mean.
        shares: [C] of each clip in the mean.
    """
    squares = residuals**2
    fourth = np.sum(squares**2, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(fourth > 0, 2 * np.sum(squares, axis=-1) ** 2 / fourth - 1, 1.0)
    most = max(1.0, effective(shares) - 1)
    return np.sum(squares / (1 - shares), axis=-1), np.clip(own, 1.0, most)


def interval(
    value: Array | np.float64,
    variance: Array,
    freedom: Array,
    clips: float,
    bounds: tuple[float, float] | None,
    besides: Array | float = 0.0,
    freedom_besides: float = np.inf,
) -> tuple[Array, Array, Array]:
    """Bounds of the 95 % interval of a mean, and its p-value against zero; all [...].

    The variance that clips cause is never more than if each were all right or all wrong, which needs no estimate: so
    the interval is never wider than Wilson's for so many clips. Where all clips are alike there is no variance to go
    by, and what so many clips can have missed is taken to lie anywhere.

    Args:
        value: the mean.
        variance, freedom: of the mean, by the clips, as spread gives them.
        clips: effective number.
        bounds: as mean_interval takes them.
        besides: variance of another, independent source; freedom_besides: its degrees of freedom.

    Raises:
        ValueError: a mean outside the bounds.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if bounds is None:
            total, free = variance + besides, _together(variance, freedom, besides, freedom_besides)
            half = np.where(total > 0, _quantile(free) * np.sqrt(total), np.nan)
            return value - half, value + half, _two_sided(np.abs(value) / np.sqrt(total), free)
        low, high = bounds
        if not np.all((value >= low - _ROUNDING) & (value <= high + _ROUNDING)):
            raise ValueError(f"means must lie in {low:g} .. {high:g}")
        # All as shares of the way from the lower bound to the upper.
        at, zero, scale = np.clip((value - low) / (high - low), 0.0, 1.0), -low / (high - low), (high - low) ** 2
        room = at * (1 - at)
        alike = (room <= _ROUNDING) | ((variance + besides) / scale <= _ROUNDING * room)
        wide, p = np.full_like(room, np.inf), np.ones_like(room)
        for part, own in ((variance / scale, freedom), (room / clips, np.inf)):
            inverse = (part + besides / scale) / room  # of the effective sample size
            free = _together(part, own, besides / scale, freedom_besides)
            reach = np.abs(at - zero) / np.sqrt(zero * (1 - zero) * inverse)
            wide, p = np.fmin(wide, _quantile(free) ** 2 * inverse), np.fmin(p, _two_sided(reach, free))
        half = np.sqrt(room * wide + wide**2 / 4) / (1 + wide)
        lower, upper = (at + wide / 2) / (1 + wide) - half, (at + wide / 2) / (1 + wide) + half
        wide = _quantile(np.inf) ** 2 / clips
        missed = wide / (1 + wide)
        apart = np.where(at > zero, (at - zero) / zero, (zero - at) / (1 - zero))
        lower, upper = np.where(alike, at * (1 - missed), lower), np.where(alike, at + missed * (1 - at), upper)
        p = np.where(alike, _two_sided(np.sqrt(clips * apart), np.inf), p)
    return low + (high - low) * lower, low + (high - low) * upper, p


def _together(variance: Array, freedom: Array | float, other: Array | float, freedom_other: float) -> Array:
    """Degrees of freedom of a sum of two variances (Satterthwaite, Biometrics Bulletin 2, 1946)."""
    both = (variance + other) ** 2 / (variance**2 / freedom + np.square(other) / freedom_other)
    return np.where(np.isnan(both), freedom, both)


def _quantile(freedom: Array | float) -> Array:
    """Student's, that LEVEL lies between it and its negative; the normal's for infinitely many degrees of freedom."""
    from scipy.special import ndtri, stdtrit  # here and below, since a finished study needs neither

    return np.where(np.isinf(freedom), ndtri((1 + LEVEL) / 2), stdtrit(freedom, (1 + LEVEL) / 2))


def _two_sided(t: Array, freedom: Array | float) -> Array:
    """Chance of Student's variable, or of the normal, to be further from zero."""
    from scipy.special import ndtr, stdtr

    return 2 * np.where(np.isinf(freedom), ndtr(-t), stdtr(freedom, -t))


def bound(value: float) -> float | None:
    """A bound of an interval for JSON and tables: None where there is no interval."""
    return None if np.isnan(value) else value


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
