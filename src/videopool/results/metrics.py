"""From the records of a point to its metrics."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from videopool.results.records import OK
from videopool.results.statistics import bound, mean_interval

QUANTILES = (0.1, 0.5, 0.9)

Record = Mapping[str, object]
HIGHEST_GRADE = 5  # of a judge
GRADE = (0.0, float(HIGHEST_GRADE))


def summarise(records: Sequence[Record], weights: Mapping[str, float] | None = None) -> dict[str, object]:
    """Score, interval, counts and chance of some records; judge_grade (0 .. 5) and its interval of those graded.

    n counts scored samples; n_failed those that could not be evaluated, which are never scored;
    n_unparsed generated answers that name no option, which count as wrong; n_unscored samples that were
    evaluated but have no right answer to compare with. weights: of tasks, see balanced.
    """
    evaluated = [r for r in records if r["status"] == OK]
    scored = [r for r in evaluated if r["score"] is not None]
    summary: dict[str, object] = {
        "n": len(scored),
        "n_failed": len(records) - len(evaluated),
        "n_unparsed": sum("parsed" in r and r["parsed"] is None for r in scored),
        "n_unscored": len(evaluated) - len(scored),
        "clips": len({r["clip"] for r in evaluated}),
        "score": None,
        "ci_low": None,
        "ci_high": None,
        "chance": None,
    }
    if scored:
        tasks, clips = [str(r["task"]) for r in scored], [r["clip"] for r in scored]
        estimate = mean_interval([float(str(r["score"])) for r in scored], clips, tasks, weights)
        summary |= {"score": estimate.value, "ci_low": bound(estimate.low), "ci_high": bound(estimate.high)}
        if graded := [r for r in scored if "judge_grade" in r]:
            grades = [float(str(r["judge_grade"])) for r in graded]
            tasks, clips = [str(r["task"]) for r in graded], [r["clip"] for r in graded]
            estimate = mean_interval(grades, clips, tasks, weights, GRADE)
            summary |= {"judge_grade": estimate.value, "judge_grade_low": bound(estimate.low)}
            summary |= {"judge_grade_high": bound(estimate.high)}
        choices = [(r.get("answer"), r["options"]) for r in scored if isinstance(r["options"], Sequence)]
        if len(choices) == len(scored) and all(options for _, options in choices):
            # A right answer may stand among the options twice.
            right = [max(1, options.count(answer)) / len(options) for answer, options in choices]
            summary["chance"] = sum(right) / len(right)
    return summary


def answer_lengths(records: Sequence[Record]) -> dict[str, object] | None:
    """Words of generated answers: mean with its interval, quantiles; None where nothing was generated."""
    said = [
        r for r in records if r["status"] == OK and isinstance(r.get("prediction"), str) and "option_logprobs" not in r
    ]
    if not said:
        return None
    words = [len(str(r["prediction"]).split()) for r in said]
    estimate = mean_interval(words, [r["clip"] for r in said], bounds=None)
    quantiles = np.quantile(words, QUANTILES).tolist()
    return {
        "n": len(words),
        "mean": estimate.value,
        "ci_low": bound(estimate.low),
        "ci_high": bound(estimate.high),
        **{f"p{round(100 * q)}": value for q, value in zip(QUANTILES, quantiles, strict=True)},
        "longest": max(words),
        "empty": sum(count == 0 for count in words),
    }


def mean_token_f1(records: Sequence[Record]) -> dict[str, object] | None:
    """Mean token F1 of open answers with its interval; None where there is none."""
    found = [r for r in records if r["status"] == OK and "token_f1" in r]
    if not found:
        return None
    estimate = mean_interval([float(str(r["token_f1"])) for r in found], [r["clip"] for r in found])
    return {
        "n": estimate.n,
        "mean": estimate.value,
        "ci_low": bound(estimate.low),
        "ci_high": bound(estimate.high),
    }


def metrics_of(
    records: Sequence[Record],
    groups: Mapping[str, Sequence[str]],
    in_headline: Callable[[str], bool],
    axes: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
) -> dict[str, object]:
    """Metrics of a point: the headline, then each group and axis, then each task.

    Args:
        axes: by the axis that a judge graded, the task of the records that have a grade on it.
        weights: of tasks in the headline; see balanced.
    """
    tasks = sorted({str(r["task"]) for r in records})
    return {
        **summarise([r for r in records if in_headline(str(r["task"]))], weights),
        "groups": {
            **{name: summarise([r for r in records if r["task"] in members]) for name, members in groups.items()},
            **{axis: summarise(_on_axis(records, axis, task)) for axis, task in (axes or {}).items() if task in tasks},
        },
        "tasks": {task: summarise([r for r in records if r["task"] == task]) for task in tasks},
        "answer_words": answer_lengths(records),
        "token_f1": mean_token_f1(records),
    }


def _on_axis(records: Sequence[Record], axis: str, task: str) -> list[Record]:
    """Records of a task as if their grade on one axis was all there is."""
    found: list[Record] = []
    for record in records:
        grades = record.get("axes")
        if record["task"] != task:
            continue
        if isinstance(grades, Mapping):
            record = {**record, "judge_grade": grades[axis], "score": grades[axis] / HIGHEST_GRADE}
        found.append(record)
    return found
