"""The samples on which two points differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.reports.points import COMPLETE
from videopool.results import ResultsError, point_records
from videopool.results.records import OK

Record = Mapping[str, Any]


@dataclass(frozen=True)
class DifferingSample:
    """One sample and what two points made of it.

    Attributes:
        first, second: its records in the two points.
    """

    first: Record
    second: Record

    @property
    def size(self) -> tuple[float, float, bool]:
        """How far the two are apart: in score, then in the right option's log-probability, then in words."""
        scores = [record["score"] for record in (self.first, self.second)]
        logprobs = [right_logprob(record) for record in (self.first, self.second)]
        return _apart(scores), _apart(logprobs), self.first["prediction"] != self.second["prediction"]


def right_logprob(record: Record) -> float | None:
    """Log-probability of the right option's letter; None where answers were generated, or none is right."""
    values, options = record.get("option_logprobs"), record["options"]
    return values[options.index(record["answer"])] if values and record["answer"] in options else None


def _apart(values: Sequence[float | None]) -> float:
    first, second = values
    return 0.0 if first is None or second is None else abs(first - second)


def differing_samples(first: str | Path, second: str | Path, most: int) -> list[DifferingSample]:
    """Samples that both points evaluated and did not answer alike, the furthest apart first.

    Args:
        first, second: folders of points.
        most: how many at most.
    """
    others = {str(record["id"]): record for record in point_records(second) if record["status"] == OK}
    both = [
        DifferingSample(record, others[str(record["id"])])
        for record in point_records(first)
        if record["status"] == OK and str(record["id"]) in others
    ]
    apart = [sample for sample in both if any(sample.size)]
    return sorted(apart, key=lambda sample: ([-value for value in sample.size], str(sample.first["id"])))[:most]


def choose_pair(frame: pd.DataFrame, asked: Sequence[str] | None) -> tuple[str, str] | None:
    """Names of two complete points whose answers are worth laying side by side; None if there are no two.

    Args:
        frame: from load_study and add_differences.
        asked: the two, or None: the best one and its baseline, or the worst where it has none. Of several
            benchmarks, the one with the most complete points counts.

    Raises:
        ResultsError: a point that was asked for is not there, or not complete.
    """
    complete = frame[frame.status == COMPLETE]
    if asked is not None:
        known = list(complete.point)
        for name in asked:
            if name not in known:
                raise ResultsError(f"job.pair: no complete point is named {name}; there are {', '.join(known)}")
        return asked[0], asked[1]
    if complete.empty:
        return None
    rows = complete[complete.benchmark == complete.benchmark.mode().iloc[0]]
    rows = rows.sort_values("score", ascending=False, kind="stable")
    best = rows.iloc[0]
    others = [str(best.get("baseline")), str(rows.iloc[-1].point)]
    others = [name for name in others if name in set(rows.point) and name != best.point]
    return (str(best.point), others[0]) if others else None
