"""Metrics of a point, from its records."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from videopool.results.records import OK
from videopool.results.statistics import SCORE, Bounds, Estimate, Weights, mean_interval

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
Record = Mapping[str, Any]
HIGHEST_GRADE = 5  # of a judge
GRADE = (0.0, float(HIGHEST_GRADE))


def _mean(records: Sequence[Record], name: str, weights: Weights | None = None, bounds: Bounds = SCORE) -> Estimate:
    values, clips = [float(r[name]) for r in records], [r["clip"] for r in records]
    return mean_interval(values, clips, [str(r["task"]) for r in records], weights, bounds)


def summarise(records: Sequence[Record], weights: Weights | None = None) -> dict[str, object]:
    """Score, interval, counts and chance of some records; judge_grade (0..5) and its interval if any are graded.

    n counts scored samples; n_failed samples that could not be evaluated, which are never scored; n_unparsed generated
    answers that name no option, which count as wrong; n_unscored evaluated samples without a reference answer.
    weights: by task, see statistics.balanced.
    """
    evaluated = [r for r in records if r["status"] == OK]
    scored = [r for r in evaluated if r["score"] is not None]
    summary: dict[str, object] = {
        "n": len(scored),
        "n_failed": len(records) - len(evaluated),
        "n_unparsed": sum("parsed" in r and r["parsed"] is None for r in scored),
        "n_unscored": len(evaluated) - len(scored),
        "clips": len({r["clip"] for r in evaluated}),
        **dict.fromkeys(("score", "ci_low", "ci_high", "chance")),
    }
    if scored:
        summary |= _mean(scored, "score", weights).named("score", "ci_low", "ci_high")
        if graded := [r for r in scored if "judge_grade" in r]:
            summary |= _mean(graded, "judge_grade", weights, GRADE).named("judge_grade")
        if all(r["options"] for r in scored):
            # The right answer may occur twice among the options.
            chances = [max(1, r["options"].count(r.get("answer"))) / len(r["options"]) for r in scored]
            summary["chance"] = sum(chances) / len(chances)
    return summary


def answer_lengths(records: Sequence[Record]) -> dict[str, object] | None:
    """Words of generated answers: mean with interval, quantiles; None without generated answers."""
    answers = [
        {"words": len(r["prediction"].split()), "clip": r["clip"], "task": r["task"]}
        for r in records
        if r["status"] == OK and isinstance(r.get("prediction"), str) and "option_logprobs" not in r
    ]
    if not answers:
        return None
    words = [answer["words"] for answer in answers]
    return {
        **_counted_mean(answers, "words", None),
        **dict(zip(QUANTILES, np.quantile(words, list(QUANTILES.values())).tolist(), strict=True)),
        "longest": max(words),
        "empty": words.count(0),
    }


def _counted_mean(records: Sequence[Record], name: str, bounds: Bounds = SCORE) -> dict[str, object]:
    return {"n": len(records), **_mean(records, name, bounds=bounds).named("mean", "ci_low", "ci_high")}


def metrics_of(
    records: Sequence[Record],
    groups: Mapping[str, Sequence[str]],
    in_headline: Callable[[str], bool],
    axes: Mapping[str, str] | None = None,
    weights: Weights | None = None,
) -> dict[str, object]:
    """Metrics of a point: the headline (weights: see statistics.balanced), then each group and axis, then each task.

    axes: by axis of a judge's grades, the task of the records that have it.
    """
    tasks = sorted({str(r["task"]) for r in records})
    by_task = {task: [r for r in records if str(r["task"]) == task] for task in tasks}
    compared = [r for r in records if r["status"] == OK and "token_f1" in r]
    grouped = {name: [r for r in records if r["task"] in members] for name, members in groups.items()}
    for axis, task in (axes or {}).items():
        if task in by_task:
            grouped[axis] = [_on_axis(record, axis) for record in by_task[task]]
    return {
        **summarise([r for r in records if in_headline(str(r["task"]))], weights),
        "groups": {name: summarise(members) for name, members in grouped.items()},
        "tasks": {task: summarise(own) for task, own in by_task.items()},
        "answer_words": answer_lengths(records),
        "token_f1": _counted_mean(compared, "token_f1") if compared else None,
    }


def _on_axis(record: Record, axis: str) -> Record:
    """A record with its grade on one axis as the only grade; a failed one as it is."""
    axes = record.get("axes")
    if not isinstance(axes, Mapping):
        return record
    return {**record, "judge_grade": axes[axis], "score": axes[axis] / HIGHEST_GRADE}
