"""One configuration under several seeds: the seed as a random effect."""

from collections.abc import Mapping, Sequence

import numpy as np

from videopool.results.statistics import LEVEL, Estimate, clustered_standard_error


def mean_over_seeds(scores: Mapping[int, Sequence[float]], clusters: Sequence[object]) -> Estimate:
    """Mean over seeds and samples, with an interval for other seeds and other clips.

    Two sources of chance are crossed: which clips were asked about, and which seeds were drawn. The variance is the sum
    of the cluster-robust one of the seeds' mean scores and of that between seeds' means over their number; what
    the two share is counted twice, so the interval is rather too wide. Its quantile is Student's with the degrees
    of freedom of Satterthwaite (Biometrics Bulletin 2, 1946).

    Args:
        scores: by seed, one a sample, or differences of two paired points; the same samples in the same order.
        clusters: the clip of each sample.

    Raises:
        ValueError: fewer than two seeds, fewer than two clips, or not as many values as clusters.
    """
    from scipy.special import stdtr, stdtrit

    table = np.array([list(values) for values in scores.values()], dtype=float)
    count = len(set(map(str, clusters)))
    if len(table) < 2 or count < 2 or table.shape[1] != len(clusters):
        raise ValueError("at least two seeds and two clips are needed, and as many values as clusters for each seed")
    of_clips = clustered_standard_error(table.mean(axis=0).tolist(), clusters) ** 2
    of_seeds = float(table.mean(axis=1).var(ddof=1)) / len(table)
    variance = of_clips + of_seeds
    value = float(table.mean())
    if variance == 0:
        return Estimate(value, value, value, int(table.shape[1]), count)
    freedom = variance**2 / (of_clips**2 / (count - 1) + of_seeds**2 / (len(table) - 1))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * float(np.sqrt(variance))
    p = 2 * float(stdtr(freedom, -abs(value) / np.sqrt(variance)))
    return Estimate(value, value - half, value + half, int(table.shape[1]), count, p)
