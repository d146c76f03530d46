"""A histogram of positive numbers in bins of equal ratio: constant memory, however many numbers.

A bin's edges have the ratio r = 2^(1/64), 1.011. The q-quantile is the ceil(q n)-th smallest number; the
histogram knows the bin it is in, and answers with the bin's geometric mean: wrong by a factor of at most
sqrt(r), 0.55 %, for numbers in 2^-64 .. 2^64.
"""

import math
from dataclasses import dataclass

import numpy as np

PER_OCTAVE = 64
LOWEST, HIGHEST = -64, 64  # exponents of 2
BINS = PER_OCTAVE * (HIGHEST - LOWEST)
RATIO = 2 ** (1 / PER_OCTAVE)


@dataclass(frozen=True)
class Gap:
    """A stretch without numbers.

    Attributes:
        ratio: of the numbers above and below it, as far as the bins tell them apart.
        cutoff: its geometric middle.
        above: how many numbers lie above it.
    """

    ratio: float
    cutoff: float
    above: int


class LogHistogram:
    """Counts and sums by bin; numbers out of range are in two bins at the ends.

    Attributes:
        counts: [BINS + 2] integers.
        sums: [BINS + 2] sums of the numbers in each bin.
        extremes: [2] smallest and largest number; inf and -inf without any.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS + 2, np.int64)
        self.sums = np.zeros(BINS + 2)
        self.extremes = np.array([np.inf, -np.inf])

    def add(self, values: np.ndarray) -> None:
        """Add numbers [N], finite and above 0."""
        if not values.size:
            return
        places = np.floor((np.log2(values) - LOWEST) * PER_OCTAVE).astype(np.int64) + 1
        places = places.clip(0, BINS + 1)
        self.counts += np.bincount(places, minlength=BINS + 2)
        self.sums += np.bincount(places, values, minlength=BINS + 2)
        self.extremes = np.array([min(self.extremes[0], values.min()), max(self.extremes[1], values.max())])

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @staticmethod
    def edges() -> np.ndarray:
        """[BINS + 1] edges of the bins in range."""
        return 2.0 ** (LOWEST + np.arange(BINS + 1) / PER_OCTAVE)

    def quantile(self, share: float) -> float | None:
        """The number that at least this share of all is not above; None without any."""
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

        Differences within a bin are not seen: too low by 0.003 at most.
        """
        if not self.total:
            return None
        seen = self.counts > 0
        counts, sums = self.counts[seen].astype(float), self.sums[seen]
        # Area under the Lorenz curve, by trapezes.
        shares, before = counts / counts.sum(), np.concatenate([[0.0], sums.cumsum()[:-1]])
        return float(max(0.0, 1 - (shares * (2 * before + sums)).sum() / sums.sum()))

    def gap_above_median(self) -> Gap | None:
        """The widest stretch of empty bins with numbers on both sides, above the median; None if there is none."""
        median = self.quantile(0.5)
        if median is None:
            return None
        places = np.flatnonzero(self.counts)
        places = places[places >= min(BINS + 1, math.floor((math.log2(median) - LOWEST) * PER_OCTAVE) + 1)]
        if len(places) < 2 or np.diff(places).max() < 2:
            return None
        widest = int(np.diff(places).argmax())
        below, above = int(places[widest]), int(places[widest + 1])
        ratio = RATIO ** (above - below - 1)
        cutoff = 2.0 ** (LOWEST + (below + above - 1) / 2 / PER_OCTAVE)
        return Gap(ratio, cutoff, int(self.counts[above:].sum()))
