"""One configuration under several seeds: the seed as a random effect."""

from collections.abc import Mapping, Sequence

import numpy as np

from videopool.results.statistics import SCORE, Estimate, estimate


def mean_over_seeds(
    scores: Mapping[int, Sequence[float]],
    clusters: Sequence[object],
    tasks: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    bounds: tuple[float, float] = SCORE,
) -> Estimate:
    """Mean over seeds and samples, with an interval for other seeds and other clips.

    Two sources of chance are crossed: which clips were asked about, and which seeds were drawn. The variance is the sum
    of the cluster-robust one of the seeds' mean scores and of that between seeds' means over their number; what
    the two share is counted twice, so the interval is rather too wide.

    Args:
        scores: by seed, one a sample, or differences of two paired points; the same samples in the same order.
        clusters, tasks, weights: as mean_interval takes them.
        bounds: SCORE, or DIFFERENCE, which has a p-value.

    Raises:
        ValueError: fewer than two seeds, or not as many values as clusters.
    """
    table = np.array([list(values) for values in scores.values()], dtype=float)
    if len(table) < 2 or table.shape[1] != len(clusters):
        raise ValueError("at least two seeds are needed, and as many values as clusters for each seed")
    return estimate(table, clusters, tasks, weights or {}, bounds)
