"""Points against each other, on the same samples."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from videopool.results.balance import balanced
from videopool.results.errors import OtherJudge, ResultsError
from videopool.results.statistics import Estimate, paired_difference
from videopool.results.study import graded_by, scores_by_sample, task_weights


def compare(first: str | Path, second: str | Path, counts: Callable[[str], bool] = lambda task: True) -> Estimate:
    """Score of the first point minus the second's, paired by sample, clustered by clip.

    Args:
        first, second: folders of complete points.
        counts: which tasks are compared.

    Raises:
        ResultsError: the two were not scored on the same samples, or by different judges (OtherJudge).
    """
    judges = [graded_by(folder) for folder in (first, second)]
    if judges[0] != judges[1]:
        raise OtherJudge(
            f"{Path(first).name} and {Path(second).name} were not scored by the same judge: "
            f"{judges[0] or 'none'}, {judges[1] or 'none'}"
        )
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
    tasks, weights = [a[i][2] for i in ids], task_weights(first)
    ours, theirs = (balanced([point[i][0] for i in ids], tasks, weights) for point in (a, b))
    return paired_difference(ours, theirs, [a[i][1] for i in ids])


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
        same_judge = other[other.judge.fillna("") == ("" if pd.isna(row.judge) else row.judge)]
        other = same_judge if len(same_judge) else other
        values: tuple[object, ...] = (None,) * len(names)
        if row.status == "complete" and len(other) and other.iloc[0].point != row.point:
            try:
                estimate = compare(str(row.folder), str(other.iloc[0].folder), counts)
                values = (other.iloc[0].point, estimate.value, estimate.low, estimate.high, estimate.p)
            except ResultsError as error:
                reason = "other judge" if isinstance(error, OtherJudge) else "other samples"
                values = (f"{other.iloc[0].point} ({reason})", None, None, None, None)
        for name, value in zip(names, values, strict=True):
            found[name].append(value)
    for name in names:
        table[name] = found[name]
    return table
