"""A mean in which tasks have fixed weights, however many samples they have.

VCGBench's score is the mean of five axes, and its generic part, which three of them grade, has twice as many samples
as the others together. Each value is replaced by its influence on the weighted mean (Davison and Hinkley, Bootstrap
Methods and their Application, 1997, section 2.7): the plain mean of what comes out is the weighted mean of task means,
and its clustered spread is that of the weighted mean to first order. So intervals and paired differences stay what
they are for plain means.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


def balanced(values: Sequence[float] | np.ndarray, tasks: Sequence[str], weights: Mapping[str, float]) -> list[float]:
    """Values whose mean is sum(w_t * mean of task t) / sum(w_t), over the tasks that are there.

    v_i = M + n * w_t / (W * n_t) * (x_i - m_t), where M is that weighted mean, m_t the mean and n_t the number of
    values of i's task, n of all, and W the sum of weights. They may lie outside 0 .. 1.

    Args:
        values: one a sample.
        tasks: of each.
        weights: of tasks; empty leaves the values as they are.
    """
    if not weights or not len(values):
        return list(values)
    array, names = np.asarray(values, dtype=float), np.asarray(tasks, dtype=object)
    means = {task: float(array[names == task].mean()) for task in dict.fromkeys(tasks)}
    total = sum(weights[task] for task in means)
    whole = sum(weights[task] * mean for task, mean in means.items()) / total
    out = np.empty_like(array)
    for task, mean in means.items():
        chosen = names == task
        out[chosen] = whole + len(array) * weights[task] / (total * chosen.sum()) * (array[chosen] - mean)
    return [float(value) for value in out]


def shares(n: int, tasks: Sequence[str], weights: Mapping[str, float]) -> np.ndarray:
    """Share of each of n samples in that weighted mean, w_t / (W * n_t), or 1 / n; they add up to 1."""
    if not weights:
        return np.full(n, 1 / n)
    counts = Counter(tasks)
    total = sum(weights[task] for task in counts)
    return np.array([weights[task] / (total * counts[task]) for task in tasks])
