"""Which tokens are outliers.

Rules that need a median take that of the tokens of one clip at one stage: a clip is what a language model reads
at once, and the rule of the interventions drop_outliers and clip_norm is the same. One pass is then enough.
The gap rule needs no median of a clip and looks at the histogram of all clips at the end.
"""

from dataclasses import dataclass

import numpy as np

from videopool.norms.errors import NormsError

TIMES_MEDIAN, ROBUST_Z, GAP = "times_median", "robust_z", "gap"
IN_CLIP = (TIMES_MEDIAN, ROBUST_Z)  # rules that name tokens of a clip
QUARTILE = 0.6744897501960817  # of the standard normal: MAD over this estimates a standard deviation


@dataclass(frozen=True)
class OutlierRules:
    """Above what a norm is an outlier. All rules look upwards only.

    Args:
        times_median: so many medians of the clip.
        robust_z: so many robust standard deviations above the median of the clip: z = 0.6745 (x - median) / MAD
            (Iglewicz and Hoaglin 1993, who take 3.5). Undefined, and nothing is an outlier, where more than half
            of the norms are equal (MAD 0).
        gap: the widest gap of the histogram above its median, where it is at least this factor wide.

    Raises:
        NormsError: a number out of range.
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
        """Above what the norms [N] of a clip are outliers, by rule; None where a rule does not apply."""
        median = float(np.median(norms))
        spread = float(np.median(np.abs(norms - median)))
        return {
            TIMES_MEDIAN: self.times_median * median,
            ROBUST_Z: median + self.robust_z * spread / QUARTILE if spread > 0 else None,
        }
