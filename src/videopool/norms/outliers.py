"""Rules for outliers among tokens.

The rules with a median use that of one clip at one stage: a language model reads one clip at once, and the
interventions drop_outliers and clip_norm follow the same rule. So one pass is enough. The gap rule looks at the
histogram of all clips at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from videopool.norms.errors import NormsError

TIMES_MEDIAN, ROBUST_Z, GAP, ABSOLUTE, MASSIVE, PHI = "times_median", "robust_z", "gap", "absolute", "massive", "phi"
QUARTILE = 0.6744897501960817  # of the standard normal: MAD over this estimates a standard deviation


@dataclass(frozen=True)
class OutlierRules:
    """Thresholds above which a token is an outlier, by its norm or, for massive and phi, by its components.

    Args:
        times_median: in medians of the clip.
        robust_z: in robust standard deviations above the clip's median: z = 0.6745 (x - median) / MAD (Iglewicz and
            Hoaglin 1993, who take 3.5). Undefined, without outliers, if more than half of the norms are equal (MAD 0).
        gap: minimal ratio of the ends of the widest gap above the histogram's median.
        absolute: rising norms, each a rule of its own, named "above_<norm>".
        massive: the size of a component, and how many medians of all components of the clip: above both, it is a
            massive activation (Sun et al. 2024).
        phi: size of a sink dimension of the RMS-normed token (arXiv 2503.03321, which takes 20).
        sink_dimensions: how many dimensions of a clip are sink dimensions: those that reach the largest sizes.

    Raises NormsError for a number out of range.
    """

    times_median: float = 3.0
    robust_z: float = 3.5
    gap: float = 1.5
    absolute: Sequence[float] = (30.0, 100.0, 150.0)
    massive: Sequence[float] = (100.0, 1000.0)
    phi: float = 20.0
    sink_dimensions: int = 2

    def __post_init__(self) -> None:
        for name, low in ((TIMES_MEDIAN, 1.0), (ROBUST_Z, 0.0), (GAP, 1.0), (PHI, 0.0), ("sink_dimensions", 0.0)):
            if not _above(low, value := getattr(self, name)) or (name == "sink_dimensions" and value != int(value)):
                kind = "whole number" if name == "sink_dimensions" else "number"
                raise NormsError(f"job.rules.{name}={value!r}: give a {kind} above {low:g}")
        for name in (ABSOLUTE, MASSIVE):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence) or not all(_above(0, v) for v in values):
                raise NormsError(f"job.rules.{name}={values!r}: give a list of numbers above 0")
        if any(a >= b for a, b in pairwise(self.absolute)):
            raise NormsError(f"job.rules.{ABSOLUTE}={self.absolute!r}: give rising numbers")
        if len(self.massive) != 2:
            raise NormsError(f"job.rules.{MASSIVE}={self.massive!r}: give two numbers, a size and a number of medians")

    @property
    def in_clip(self) -> tuple[str, ...]:
        """Names of the rules that mark tokens of a clip."""
        return (TIMES_MEDIAN, ROBUST_Z, *(f"above_{norm:g}" for norm in self.absolute), MASSIVE, PHI)

    def cutoffs(self, norms: np.ndarray, component: float) -> dict[str, float | None]:
        """Thresholds by rule for a clip with norms [N], and the median size of its tokens' components.

        They are for norms; under massive for a token's largest component, under phi for its phi. None if a rule does
        not apply.
        """
        median = float(np.median(norms))
        spread = float(np.median(np.abs(norms - median)))
        least, medians = self.massive
        found = (
            self.times_median * median,
            median + self.robust_z * spread / QUARTILE if spread > 0 else None,
            *map(float, self.absolute),
            max(float(least), medians * component),
            float(self.phi),
        )
        return dict(zip(self.in_clip, found, strict=True))


def _above(low: float, value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and low < value < float("inf")
