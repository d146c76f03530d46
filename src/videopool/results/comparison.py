"""Points against each other, on the same samples."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from videopool.results.errors import ResultsError
from videopool.results.statistics import Estimate, paired_difference
from videopool.results.study import scores_by_sample


def compare(first: str | Path, second: str | Path, counts: Callable[[str], bool] = lambda task: True) -> Estimate:
    """Score of the first point minus the second's, paired by sample, clustered by clip.

    Args:
        first, second: folders of complete points.
        counts: which tasks are compared.

    Raises:
        ResultsError: the two were not scored on the same samples.
    """
    a, b = (
        {sample: value for sample, value in scores_by_sample(folder).items() if counts(value[2])}
        for folder in (first, second)
    )
    if a.keys() != b.keys():
        raise ResultsError(
            f"{Path(first).name} and {Path(second).name} were not scored on the same samples: "
            f"{len(a.keys() - b.keys())} only in the first, {len(b.keys() - a.keys())} only in the second"
        )
    if not a:
        raise ResultsError(f"{Path(first).name} and {Path(second).name} have no scored samples to compare")
    ids = sorted(a)
    return paired_difference([a[i][0] for i in ids], [b[i][0] for i in ids], [a[i][1] for i in ids])


def add_differences(table: pd.DataFrame, baseline: str, counts: Callable[[str], bool]) -> pd.DataFrame:
    """Add baseline, difference, difference_low, difference_high, p to complete points of a study.

    Args:
        table: from load_study.
        baseline: a pooling's name: each point is compared with that pooling at the same frames; or a
            point's name: each is compared with that one.
        counts: which tasks are compared.
    """
    table = table.copy()
    names = ("baseline", "difference", "difference_low", "difference_high", "p")
    found: dict[str, list[object]] = {name: [] for name in names}
    complete = table[table.status == "complete"]
    for row in table.itertuples():
        other = complete[(complete.benchmark == row.benchmark) & (complete.model == row.model)]
        by_name = other[other.point == baseline]
        other = by_name if len(by_name) else other[(other.pooling == baseline) & (other.frames == row.frames)]
        values: tuple[object, ...] = (None,) * len(names)
        if row.status == "complete" and len(other) and other.iloc[0].point != row.point:
            try:
                estimate = compare(str(row.folder), str(other.iloc[0].folder), counts)
                values = (other.iloc[0].point, estimate.value, estimate.low, estimate.high, estimate.p)
            except ResultsError:
                values = (f"{other.iloc[0].point} (other samples)", None, None, None, None)
        for name, value in zip(names, values, strict=True):
            found[name].append(value)
    for name in names:
        table[name] = found[name]
    return table
