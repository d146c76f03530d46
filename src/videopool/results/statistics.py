"""Scores and differences with intervals. Samples of one clip are not independent: clips are the unit of sampling.

The variance of a mean is cluster-robust (Liang and Zeger, Biometrika 73, 1986), with the small-sample correction CR2
(Bell and McCaffrey, Survey Methodology 28, 2002). The interval is Wilson's (JASA 22, 1927) on the effective sample size
that this variance implies (Korn and Graubard, Survey Methodology 24, 1998), with Student's quantile: it stays within
the bounds of a score, and is honest close to them. A p-value is one less the level of the interval that just reaches
zero, so the two never contradict each other.

Tasks may have fixed weights, however many samples they have: VCGBench's score is the mean of five axes, and its generic
part, graded on three of them, has twice as many samples as the others together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

LEVEL = 0.95
LEAST_CLIPS = 10  # with fewer, no interval has its nominal coverage
SCORE = (0.0, 1.0)
DIFFERENCE = (-1.0, 1.0)
_ROUNDING = 1e-12
ALPHA, POWER = 0.05, 0.8  # of the test whose power is computed, two-sided
STEPS = 1000  # candidate differences

Array = np.ndarray[Any, np.dtype[np.float64]]
Bounds = tuple[float, float] | None
Weights = Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    value: float  # 0..1 for scores, -1..1 for differences
    low: float  # bounds of the 95 % interval; NaN with fewer than LEAST_CLIPS clips
    high: float
    n: int  # samples
    clusters: int  # clips
    p: float | None = None  # two-sided, against zero, for differences; None without an interval

    def named(self, name: str, low: str = "", high: str = "") -> dict[str, float | None]:
        """Mean and bounds (None without an interval) under these names: by default <name>, <name>_low, <name>_high."""
        bounds = [None if np.isnan(bound) else bound for bound in (self.low, self.high)]
        return {name: self.value, low or f"{name}_low": bounds[0], high or f"{name}_high": bounds[1]}


def mean_interval(
    values: Sequence[float] | Array,
    clusters: Sequence[object],
    tasks: Sequence[str] = (),
    weights: Weights | None = None,
    bounds: Bounds = SCORE,
) -> Estimate:
    """Mean of values, one per sample, with a 95 % interval, clustered. For a table [R, n] of R seeds: mean_over_seeds.

    clusters, tasks: the clip and the task of each sample; tasks are only needed with weights. weights: by task, see
    balanced; empty: all samples count alike. bounds: smallest and largest possible value, or None.

    Raises ValueError for no values, another number of clusters, or a mean outside the bounds.
    """
    table, weights = np.atleast_2d(np.asarray(values, dtype=float)), weights or {}
    if table.size == 0 or table.shape[1] != len(clusters):
        raise ValueError("as many clusters as values are needed, and at least one")
    _, place = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    rows, n = np.array([balanced(row, tasks, weights) for row in table]), table.shape[1]
    value, count = float(rows.mean()), int(place.max()) + 1
    if count < LEAST_CLIPS:
        return Estimate(value, float("nan"), float("nan"), n, count)
    residuals: np.ndarray = np.bincount(place, weights=rows.mean(axis=0) - value) / n
    share: np.ndarray = np.bincount(place, weights=_shares(n, tasks, weights))
    variance, freedom = spread(residuals, share)
    if weights and bounds is not None:
        variance = variance + _unseen(table.mean(axis=0), place, tasks, weights, bounds)
    between = float(rows.mean(axis=1).var(ddof=1)) / len(rows) if len(rows) > 1 else 0.0
    low, high, p = interval(np.float64(value), variance, freedom, effective(share), bounds, between, len(rows) - 1)
    return Estimate(value, float(low), float(high), n, count, float(p) if bounds == DIFFERENCE else None)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[object],
    tasks: Sequence[str] = (),
    weights: Weights | None = None,
) -> Estimate:
    """Mean of first - second, scores of the same samples, as mean_interval. Raises ValueError for unequal lengths."""
    if len(first) != len(second):
        raise ValueError("paired scores must be of the same samples")
    return mean_interval(np.subtract(first, second, dtype=float), clusters, tasks, weights, DIFFERENCE)


def mean_over_seeds(
    scores: Mapping[int, Sequence[float]],
    clusters: Sequence[object],
    tasks: Sequence[str] = (),
    weights: Weights | None = None,
    bounds: tuple[float, float] = SCORE,
) -> Estimate:
    """Mean over seeds and samples of one configuration, with an interval for other seeds and other clips.

    Clips and seeds are crossed random effects. The variance is the cluster-robust variance of the seeds' mean scores
    plus the variance between seeds over their number. It counts the shared part twice: the interval is conservative.

    scores: by seed, one per sample, in the same order; with bounds DIFFERENCE, differences of two paired points, which
    give a p-value. Raises ValueError for fewer than two seeds, or another number of values than clusters.
    """
    table = np.array([list(values) for values in scores.values()], dtype=float)
    if len(table) < 2 or table.shape[1] != len(clusters):
        raise ValueError("at least two seeds are needed, and as many values as clusters for each seed")
    return mean_interval(table, clusters, tasks, weights, bounds)


def balanced(values: Array, tasks: Sequence[str], weights: Weights) -> Array:
    """Values [n] whose plain mean is the weighted mean M of the task means; they may lie outside 0..1.

    v_i = M + n * s_i * (x_i - m_t), with the share s_i of the sample and the mean m_t of its task. This is the sample's
    influence on M (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 2.7), so the clustered
    variance of these values is the variance of M to first order. Without weights the values stay as they are.
    """
    if not weights:
        return values
    own = _shares(len(values), tasks, weights)
    means = pd.Series(values).groupby(list(tasks)).transform("mean").to_numpy()
    return own @ means + len(values) * own * (values - means)


def _shares(n: int, tasks: Sequence[str], weights: Weights) -> Array:
    """Share of each of n samples in the weighted mean, w_t / (W * n_t), or 1 / n without weights; they add up to 1."""
    if not weights:
        return np.full(n, 1 / n)
    names, place, counts = np.unique(np.asarray(tasks), return_inverse=True, return_counts=True)
    own = np.array([weights[name] for name in names])
    return (own / (own.sum() * counts))[place]


def _unseen(
    values: Array, place: np.ndarray, tasks: Sequence[str], weights: Weights, bounds: tuple[float, float]
) -> float:
    """Variance added to a weighted mean by tasks with constant values, which show none.

    With C clips, one more clip is assumed at the further bound.
    """
    added, total = 0.0, sum(weights[task] for task in set(tasks))
    for task, own in pd.DataFrame({"value": values, "clip": place}).groupby(list(tasks)):
        value, clips = own.value.iloc[0], own["clip"].nunique()
        if np.ptp(own.value) <= _ROUNDING:
            furthest = max(bounds[1] - value, value - bounds[0])
            added += (weights[str(task)] / total * furthest) ** 2 / (clips * (clips + 1))
    return added


def effective(shares: Array) -> float:
    """Effective number of clips with shares [C] in the mean: 1 / sum of squared shares."""
    return float(1 / np.sum(shares**2))


def spread(residuals: Array, shares: Array) -> tuple[Array, Array]:
    """Variance of a mean and its degrees of freedom, both [...], from residuals [..., C] and shares [C] in the mean.

    A residual is a clip's contribution to the error of the mean. Satterthwaite's degrees of freedom with the clips' own
    fourth moments: few if a few clips make all of the variance.
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
    bounds: Bounds,
    besides: Array | float = 0.0,
    freedom_besides: float = np.inf,
) -> tuple[Array, Array, Array]:
    """Bounds of the 95 % interval of a mean, and its p-value against zero; all [...].

    variance, freedom: from `spread`; clips: their effective number; besides, freedom_besides: variance of another,
    independent source, and its degrees of freedom. Raises ValueError for a mean outside the bounds.

    The clips' variance is at most the variance of clips that are all right or all wrong, which needs no estimate: the
    interval is never wider than Wilson's for as many clips. If all clips are alike there is no variance to estimate;
    unseen clips may then lie anywhere within the bounds.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if bounds is None:
            total, free = variance + besides, _together(variance, freedom, besides, freedom_besides)
            half = np.where(total > 0, _quantile(free) * np.sqrt(total), np.nan)
            return value - half, value + half, _two_sided(np.abs(value) / np.sqrt(total), free)
        low, high = bounds
        if not np.all((value >= low - _ROUNDING) & (value <= high + _ROUNDING)):
            raise ValueError(f"means must lie in {low:g} .. {high:g}")
        # Everything as a share of the way from the lower bound to the upper.
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
    """Student's quantile: LEVEL lies between it and its negative. The normal quantile for infinite freedom."""
    from scipy.special import ndtri, stdtrit  # here and below: reading a finished study needs no scipy

    return np.where(np.isinf(freedom), ndtri((1 + LEVEL) / 2), stdtrit(freedom, (1 + LEVEL) / 2))


def _two_sided(t: Array, freedom: Array | float) -> Array:
    """Two-sided tail probability of Student's distribution, or of the normal for infinite freedom."""
    from scipy.special import ndtr, stdtr

    return 2 * np.where(np.isinf(freedom), ndtr(-t), stdtr(freedom, -t))


def holm(p_values: Sequence[float | None], families: Sequence[object] = ()) -> list[float | None]:
    """P-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979), each family on its own.

    The probability of any false claim in a family stays below the level. None stays None and does not count. families:
    of each p-value; empty: a single family.
    """
    p = pd.Series(p_values, dtype=float).dropna().sort_values(kind="stable")
    family = [str(families[place]) if families else "" for place in p.index]
    not_smaller = p.groupby(family).cumcount(ascending=False) + 1
    corrected = (p * not_smaller).clip(upper=1.0).groupby(family).cummax()
    return [float(corrected[place]) if place in corrected else None for place in range(len(p_values))]


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
    # The expected degrees of freedom of `spread`: few if few samples flip.
    tails = 3 + np.maximum(0.0, 1 / flipped - 3) * widened / m**2  # kurtosis of a clip's sum
    few = 2 * widened.sum() ** 2 / np.sum(tails * widened**2) - 1
    freedom = np.clip(few, 1.0, max(1.0, effective(m / m.sum()) - 1))
    critical = stdtrit(freedom, 1 - ALPHA / 2 / comparisons)
    with np.errstate(divide="ignore"):
        power = 1 - nctdtr(freedom, tried * np.sqrt(1 - tried**2) / error, critical)
    enough = np.flatnonzero(power >= POWER)
    return float(tried[enough[0]]) if len(enough) else None
