"""Mean, variance and kurtosis of a stream.

Central moments of two parts give those of the whole: Pebay, "Formulas for robust, one-pass parallel computation
of covariances and arbitrary-order statistical moments" (Sandia report SAND2008-6212), equations for the sums
M_k = sum (x - mean)^k.
"""

import math

import numpy as np


class Moments:
    """Number, mean and central sums M2, M3, M4.

    Attributes:
        values: [5] the five, in that order.
    """

    def __init__(self, numbers: np.ndarray | None = None) -> None:
        self.values = np.zeros(5)
        if numbers is not None and numbers.size:
            mean = numbers.mean()
            off = numbers - mean
            self.values = np.array([numbers.size, mean, (off**2).sum(), (off**3).sum(), (off**4).sum()])

    def add(self, numbers: np.ndarray) -> None:
        """Add numbers [N]."""
        self.merge(Moments(numbers))

    def merge(self, other: "Moments") -> None:
        """Take in another part."""
        if not other.values[0]:
            return
        if not self.values[0]:
            self.values = other.values.copy()
            return
        (a, mean, a2, a3, a4), (b, other_mean, b2, b3, b4) = self.values, other.values
        n, d = a + b, other_mean - mean
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
        """n M4 / M2^2 - 3, 0 for a normal distribution; None where all numbers are equal."""
        n, mean, m2, _, m4 = self.values
        if not n or m2 / n <= (np.finfo(float).eps * mean) ** 2:
            return None
        return float(n * m4 / m2**2 - 3)
