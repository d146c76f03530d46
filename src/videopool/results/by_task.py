"""Two points against each other, over all that counts and task by task."""

from collections.abc import Mapping
from functools import partial
from operator import eq
from pathlib import Path

import pandas as pd

from videopool.results.comparison import Comparison, compare, headline_of
from videopool.results.statistics import bound, holm
from videopool.results.study import scores_by_sample

ALL_TASKS = "all"  # the row of all tasks that count towards the score


def compare_by_task(first: str | Path, second: str | Path, intersect: bool = False) -> dict[str, Comparison]:
    """Comparison of two points over all that counts towards the score (ALL_TASKS), then by task.

    Args:
        first, second: folders of complete points.
        intersect: compare on the samples that both were scored on.

    Raises:
        ResultsError: as compare.
    """
    found = {ALL_TASKS: compare(first, second, headline_of(first), intersect)}
    scored = [{value[2] for value in scores_by_sample(folder).values()} for folder in (first, second)]
    tasks = sorted(scored[0] & scored[1])
    if len(tasks) > 1:
        found |= {task: compare(first, second, partial(eq, task), intersect) for task in tasks}
    return found


def corrected(found: Mapping[str, Comparison]) -> dict[str, float | None]:
    """Holm's p-values of the tasks, among themselves."""
    tasks = [name for name in found if name != ALL_TASKS]
    return dict(zip(tasks, holm([found[name].difference.p for name in tasks]), strict=True))


def by_task_table(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """Comparisons of two points as a table, one row a task.

    Columns: task, n, clips, difference, difference_low, difference_high, p, p_holm (None for ALL_TASKS), only_first and
    only_second (samples that only one point got right; None for scores other than right and wrong), dropped.

    Args:
        found: from compare_by_task.
    """
    p_holm = corrected(found)
    rows = []
    for task, one in found.items():
        d, flipped = one.difference, one.flips
        rows.append(
            {
                "task": task, "n": d.n, "clips": d.clusters,
                "difference": d.value, "difference_low": bound(d.low), "difference_high": bound(d.high),
                "p": d.p, "p_holm": p_holm.get(task),
                "only_first": None if flipped is None else len(flipped.first),
                "only_second": None if flipped is None else len(flipped.second),
                "dropped": one.dropped,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)
