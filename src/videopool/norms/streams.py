"""Statistics of streams in constant memory: sums by name, and moments."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from videopool.norms.errors import NormsError


class Sums:
    """Arrays of sums by name; 0 for a name without any."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.sums.get(name, np.zeros(()))

    def accumulate(self, values: Mapping[str, ArrayLike]) -> None:
        """Add arrays to the sums; series [N] of different lengths from their start.

        Raises NormsError for a map [H, W] of another size than before.
        """
        for name, value in values.items():
            new = np.asarray(value, float)
            old = self.sums.get(name, np.zeros_like(new))
            if new.ndim == 1:
                length = max(old.size, new.size)
                old, new = (np.pad(series, (0, length - series.size)) for series in (old, new))
            elif old.shape != new.shape:
                raise NormsError(
                    f"grids of {' x '.join(map(str, old.shape))} and of {' x '.join(map(str, new.shape))} cells at one "
                    "stage make no common map: leave that stage out of job.stages"
                )
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
