"""The distribution of positive numbers: a histogram of any number of them in constant memory; the Gini coefficient.

Edges of neighbouring bins have the ratio r = 2^(1/64) = 1.011. The q-quantile is the ceil(q n)-th smallest number; its
estimate is the geometric mean of its bin: wrong by a factor of at most sqrt(r), 0.55 %, for numbers in 2^-64 .. 2^64.
"""

import math
from typing import NamedTuple

import numpy as np

PER_OCTAVE = 64
LOWEST, HIGHEST = -64, 64  # exponents of 2
BINS = PER_OCTAVE * (HIGHEST - LOWEST)
RATIO = 2 ** (1 / PER_OCTAVE)


class Gap(NamedTuple):
    """A stretch without numbers."""

    ratio: float  # of the numbers above and below it, up to the width of the bins
    cutoff: float  # its geometric middle
    above: int  # count of numbers above it


class LogHistogram:
    """Counts and sums of numbers by bin; two more bins at the ends hold numbers out of range."""

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

    def gap_above_median(self) -> Gap | None:
        """The widest stretch of empty bins above the median with numbers on both sides; None if there is none."""
        median = self.quantile(0.5)
        if median is None:
            return None
        places = np.flatnonzero(self.counts)
        places = places[places >= np.minimum(BINS + 1, _bin(median))]
        if len(places) < 2 or np.diff(places).max() < 2:
            return None
        widest = int(np.diff(places).argmax())
        below, above = int(places[widest]), int(places[widest + 1])
        cutoff = 2.0 ** (LOWEST + (below + above - 1) / 2 / PER_OCTAVE)
        return Gap(RATIO ** (above - below - 1), cutoff, int(self.counts[above:].sum()))


def _bin(values: np.ndarray | float) -> np.ndarray:
    """Index of a number's bin; bin 0 is below the range."""
    return np.floor((np.log2(values) - LOWEST) * PER_OCTAVE).astype(np.int64) + 1


def gini(values: np.ndarray) -> float:
    """Exact Gini coefficient of positive numbers [N]: 0 if all are equal, 1 - 1/N if one has all."""
    ordered, n = np.sort(values), values.size
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))
