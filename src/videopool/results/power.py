"""What a study can find: the smallest difference that its samples show reliably."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

LEVEL = 0.05  # two-sided
POWER = 0.8


def design_effect(sizes: Sequence[int], correlation: float) -> float:
    """By how much clips of several samples widen the variance of a mean: 1 + (m (1 + v^2) - 1) r.

    m is the mean number of samples on a clip, v their coefficient of variation, r the correlation of two samples of a
    clip (Eldridge, Ashby and Kerry, International Journal of Epidemiology 35, 2006).
    """
    mean = sum(sizes) / len(sizes)
    variation = sum((size - mean) ** 2 for size in sizes) / len(sizes) / mean**2
    return 1 + (mean * (1 + variation) - 1) * correlation


def detectable_difference(samples: int, effect: float, flipped: float, comparisons: int = 1) -> float:
    """Smallest difference of two paired accuracies found with 80 % power at a two-sided level of 5 %.

    The difference of a sample is -1, 0 or 1, and 0 unless exactly one point is right, so its variance is the share of
    such samples less the squared difference: d^2 = (z_level + z_power)^2 (flipped - d^2) e / n, solved for d
    (Connor, Biometrics 43, 1987; e: design_effect).

    Args:
        samples: how many are compared.
        effect: of their lying on clips together (design_effect, with the correlation of the differences).
        flipped: expected share of samples that exactly one of the two points answers rightly.
        comparisons: as many as Holm corrects for; the smallest p-value has to pass level / comparisons.

    Returns:
        The difference, 0..1; never more than `flipped`, and equal to it if no difference could be found.
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - LEVEL / 2 / comparisons) + normal.inv_cdf(POWER)
    spread = z**2 * effect / samples
    return min(flipped, sqrt(spread * flipped / (1 + spread)))
