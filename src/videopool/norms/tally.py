"""Sums by name, which clips are added to."""

import numpy as np

from videopool.norms.errors import NormsError


class Tally:
    """Named arrays of sums; a name that nothing was added to is 0.

    Attributes:
        sums: by name.
    """

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.sums.get(name, np.zeros(()))

    def add(self, name: str, values: np.ndarray | float) -> None:
        """Add an array; a longer or shorter series [N] than before is added from its beginning.

        Raises:
            NormsError: a map [H, W] of another size than before.
        """
        new = np.asarray(values, float)
        old = self.sums.get(name)
        if old is None:
            self.sums[name] = new.copy()
        elif old.shape == new.shape:
            self.sums[name] = old + new
        elif new.ndim == 1:
            sums = np.zeros(max(old.size, new.size))
            sums[: old.size] += old
            sums[: new.size] += new
            self.sums[name] = sums
        else:
            raise NormsError(
                f"grids of {' x '.join(map(str, old.shape))} and of {' x '.join(map(str, new.shape))} cells at one "
                "stage make no common map: leave that stage out of job.stages"
            )

    def ratio(self, above: str, below: str) -> np.ndarray:
        """One sum over another, NaN where that is 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self[below] > 0, self[above] / self[below], np.nan)

    def number(self, above: str, below: str) -> float | None:
        """ratio() of two single sums as a number; None for NaN."""
        value = float(self.ratio(above, below))
        return None if np.isnan(value) else value
