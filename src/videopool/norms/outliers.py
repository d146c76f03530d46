"""Rules for outliers among token norms.

The rules with a median use that of one clip at one stage: a language model reads one clip at once, and the
interventions drop_outliers and clip_norm follow the same rule. So one pass is enough. The gap rule looks at the
histogram of all clips at the end.
"""

from dataclasses import dataclass

import numpy as np

from videopool.norms.errors import NormsError

TIMES_MEDIAN, ROBUST_Z, GAP = "times_median", "robust_z", "gap"
IN_CLIP = (TIMES_MEDIAN, ROBUST_Z)  # rules that mark tokens of a clip
QUARTILE = 0.6744897501960817  # of the standard normal: MAD over this estimates a standard deviation


@dataclass(frozen=True)
class OutlierRules:
    """Thresholds above which a norm is an outlier.

    Args:
        times_median: in medians of the clip.
        robust_z: in robust standard deviations above the clip's median: z = 0.6745 (x - median) / MAD (Iglewicz and
            Hoaglin 1993, who take 3.5). Undefined, without outliers, if more than half of the norms are equal (MAD 0).
        gap: minimal ratio of the ends of the widest gap above the histogram's median.

    Raises NormsError for a number out of range.
    """

    times_median: float = 3.0
    robust_z: float = 3.5
    gap: float = 1.5

    def __post_init__(self) -> None:
        for name, low in ((TIMES_MEDIAN, 1.0), (ROBUST_Z, 0.0), (GAP, 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value < float("inf"):
                raise NormsError(f"job.rules.{name}={value!r}: give a number above {low:g}")

    def cutoffs(self, norms: np.ndarray) -> dict[str, float | None]:
        """Thresholds for the norms [N] of a clip by rule; None if a rule does not apply."""
        median = float(np.median(norms))
        spread = float(np.median(np.abs(norms - median)))
        return {
            TIMES_MEDIAN: self.times_median * median,
            ROBUST_Z: median + self.robust_z * spread / QUARTILE if spread > 0 else None,
        }
