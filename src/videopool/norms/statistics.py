"""Statistics of streams in constant memory: sums by name, moments, histograms of positive numbers; rank correlation."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

PER_OCTAVE = 64
LOWEST, HIGHEST = -64, 64  # exponents of 2
BINS = PER_OCTAVE * (HIGHEST - LOWEST)
RATIO = 2 ** (1 / PER_OCTAVE)


class Sums:
    """Arrays of sums by name; 0 for a name without any."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.sums.get(name, np.zeros(()))

    def accumulate(self, values: Mapping[str, ArrayLike]) -> None:
        """Add arrays to the sums; series [N] of different lengths from their start."""
        for name, value in values.items():
            new = np.asarray(value, float)
            if name not in self.sums:
                self.sums[name] = new.copy()
                continue
            old = self.sums[name]
            if new.ndim == 1 and new.size != old.size:
                length = max(old.size, new.size)
                old, new = (np.pad(series, (0, length - series.size)) for series in (old, new))
            assert old.shape == new.shape, f"{name}: {old.shape} and {new.shape}"
            self.sums[name] = old + new

    def add_mean(self, name: str, value: float | None) -> None:
        """Add one value to a mean over clips; None is not in it."""
        if value is not None:
            self.accumulate({name: value, f"{name}.clips": 1})

    def mean(self, name: str) -> float | None:
        """The mean of what add_mean() added; None without any."""
        return self.number(name, f"{name}.clips")

    def ratio(self, above: str, below: str) -> np.ndarray:
        """One sum over another, NaN where the other is 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self[below] > 0, self[above] / self[below], np.nan)

    def number(self, above: str, below: str) -> float | None:
        """ratio() of two numbers; None for NaN."""
        value = float(self.ratio(above, below))
        return None if np.isnan(value) else value

    def state(self) -> dict[str, np.ndarray]:
        """All sums, to be saved."""
        return dict(self.sums)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a state."""
        self.sums = dict(state)


class Moments:
    """Mean, variance and kurtosis of a stream.

    Central moments of two parts give those of their union: Pebay, "Formulas for robust, one-pass parallel computation
    of covariances and arbitrary-order statistical moments" (Sandia report SAND2008-6212), equations for the sums
    M_k = sum (x - mean)^k.
    """

    def __init__(self) -> None:
        self.values = np.zeros(5)  # count, mean, M2, M3, M4

    def add(self, numbers: np.ndarray) -> None:
        """Add numbers [N]."""
        if not numbers.size:
            return
        a, mean, a2, a3, a4 = self.values
        b, d = numbers.size, numbers.mean() - mean
        b2, b3, b4 = (((numbers - numbers.mean()) ** power).sum() for power in (2, 3, 4))
        n = a + b
        m2 = a2 + b2 + d**2 * a * b / n
        m3 = a3 + b3 + d**3 * a * b * (a - b) / n**2 + 3 * d * (a * b2 - b * a2) / n
        m4 = a4 + b4 + d**4 * a * b * (a**2 - a * b + b**2) / n**3
        m4 += 6 * d**2 * (a**2 * b2 + b**2 * a2) / n**2 + 4 * d * (a * b3 - b * a3) / n
        self.values = np.array([n, mean + d * b / n, m2, m3, m4])

    @property
    def mean(self) -> float | None:
        return float(self.values[1]) if self.values[0] else None

    @property
    def std(self) -> float | None:
        """Square root of M2 / n."""
        return math.sqrt(self.values[2] / self.values[0]) if self.values[0] else None

    @property
    def excess_kurtosis(self) -> float | None:
        """n M4 / M2^2 - 3, 0 for a normal distribution; None if all numbers are equal."""
        n, mean, m2, _, m4 = self.values
        if not n or m2 / n <= (np.finfo(float).eps * mean) ** 2:
            return None
        return float(n * m4 / m2**2 - 3)


class Gap(NamedTuple):
    """A stretch with few numbers."""

    ratio: float  # of the numbers above and below it, up to the width of the bins
    cutoff: float  # its geometric middle
    above: int  # count of numbers above the cutoff


class LogHistogram:
    """Counts and sums of numbers by bin; two more bins at the ends hold numbers out of range.

    Edges of neighbouring bins have the ratio r = 2^(1/64) = 1.011. The q-quantile is the ceil(q n)-th smallest number;
    its estimate is the geometric mean of its bin: wrong by a factor of at most sqrt(r), 0.55 %, for numbers in
    2^-64 .. 2^64.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS + 2, np.int64)
        self.sums = np.zeros(BINS + 2)
        self.extremes = np.array([np.inf, -np.inf])  # smallest and largest number

    def add(self, values: np.ndarray) -> None:
        """Add numbers [N], finite and above 0."""
        if not values.size:
            return
        bins = _bin(values).clip(0, BINS + 1)
        self.counts += np.bincount(bins, minlength=BINS + 2)
        self.sums += np.bincount(bins, values, minlength=BINS + 2)
        self.extremes = np.array([min(self.extremes[0], values.min()), max(self.extremes[1], values.max())])

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @staticmethod
    def edges() -> np.ndarray:
        """[BINS + 1] edges of the bins in range."""
        return 2.0 ** (LOWEST + np.arange(BINS + 1) / PER_OCTAVE)

    def quantile(self, share: float) -> float | None:
        """The smallest number that at least this share of all does not exceed; None without any."""
        if not self.total:
            return None
        rank = max(1, math.ceil(share * self.total - 1e-9))
        place = int(np.searchsorted(self.counts.cumsum(), rank))
        low, high = self.extremes
        if place in (0, BINS + 1):
            return float(low if place == 0 else high)
        middle = 2.0 ** (LOWEST + (place - 0.5) / PER_OCTAVE)
        return float(min(max(middle, low), high))

    def gini(self) -> float | None:
        """Gini coefficient: mean difference of two numbers over twice their mean; 0 if all are equal.

        Too low by at most 0.003, because differences within a bin are not seen.
        """
        if not self.total:
            return None
        seen = self.counts > 0
        counts, sums = self.counts[seen].astype(float), self.sums[seen]
        # Area under the Lorenz curve, by trapezes.
        shares, before = counts / counts.sum(), np.concatenate([[0.0], sums.cumsum()[:-1]])
        return float(max(0.0, 1 - (shares * (2 * before + sums)).sum() / sums.sum()))

    def gap_above_median(self, thin: float = 0.0) -> Gap | None:
        """The widest stretch of empty bins above the median with numbers on both sides; None if there is none.

        It may hold numbers, at most this share of those above it. So a second hump is seen although a few numbers lie
        between the two, and a tail that thins out is none.
        """
        median = self.quantile(0.5)
        if median is None:
            return None
        first = int(np.minimum(BINS + 1, _bin(median)))
        upto = self.counts.cumsum()
        above = np.flatnonzero(self.counts[first + 1 :]) + first + 1  # first bins above a stretch
        within = thin * (self.total - upto[above - 1])  # most numbers that it may hold
        below = np.maximum(first, np.searchsorted(upto, upto[above - 1] - within))  # last bins below it
        widths = above - below - 1
        if not len(above) or widths.max() < 1:
            return None
        widest = int(widths.argmax())
        middle = int(below[widest] + above[widest] + 1) // 2
        cutoff = 2.0 ** (LOWEST + (middle - 1) / PER_OCTAVE)
        return Gap(RATIO ** int(widths[widest]), cutoff, int(self.counts[middle:].sum()))


def _bin(values: np.ndarray | float) -> np.ndarray:
    """Index of a number's bin; bin 0 is below the range."""
    return np.floor((np.log2(values) - LOWEST) * PER_OCTAVE).astype(np.int64) + 1


def gini(values: np.ndarray) -> float:
    """Exact Gini coefficient of positive numbers [N]: 0 if all are equal, 1 - 1/N if one has all."""
    ordered, n = np.sort(values), values.size
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks [N] of a series from its mean rank, which sum to 0; ties share their mean rank. NaN if a value is NaN."""
    order = np.argsort(values)
    ordered = values[order]
    found = np.empty(values.size)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: values.size])
    lengths = np.diff(starts, append=values.size)
    found[order] = np.repeat(starts + (lengths - values.size) / 2, lengths)
    return np.full(values.size, np.nan) if np.isnan(ordered[-1:]).any() else found


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Correlation of two series [N] with the mean 0; None if one of them is constant."""
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 0 else None


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's correlation of two series [N]; None if one of them is constant."""
    return correlation(ranks(first), ranks(second))
