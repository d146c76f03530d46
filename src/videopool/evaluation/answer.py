"""Answer the questions of a point that have no answer yet, and have answers graded."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from videopool.benchmarks import Sample, contradictions, repeated_answers, require_clips
from videopool.config.errors import Stopped
from videopool.evaluation.api import answer_by_api
from videopool.evaluation.contents import content_of
from videopool.evaluation.judging import grade, ungraded
from videopool.evaluation.records import TOO_LONG, AnswerCost
from videopool.notes import note
from videopool.points.api import ApiPoint
from videopool.points.lifecycle import check_failures
from videopool.points.point import Point
from videopool.results import PointFolder, RecordLog, metrics_of, read_records
from videopool.results.manifest import now, peak_memory
from videopool.results.point import MANIFEST, RECORDS, TIMES, attempts_of, read_json
from videopool.results.records import ANSWERED, MODEL, OK, SHARED, read_times
from videopool.runtime.interrupts import StopRequest, ask_before_stopping
from videopool.runtime.log import say

Answerer = Callable[[Sequence[Sample], RecordLog, StopRequest], AnswerCost]  # appends records of samples to a log


def answer(
    point: Point, folder: PointFolder, answerer: Answerer | None = None
) -> tuple[dict[str, Any], list[dict[str, object]]]:
    """Answer the open questions of a point and, with a judge, grade all answers; then metrics and records of all.

    Raises PointFailed if too many samples failed, ChatError if judge or API cannot be used, Stopped for the user.
    """
    benchmark, judge = point.benchmark, point.judge
    started = time.perf_counter()
    cost = _complete_answers(point, folder, answerer)
    records = [ungraded(record) for record in read_records(folder.path / RECORDS)]
    seconds = dict(cost.seconds)
    graded: dict[str, object] = {}
    if judge is not None:
        began = time.perf_counter()
        records, graded = grade(point, folder, judge, records)
        seconds["judge"] = time.perf_counter() - began
    failed = [record for record in records if record["status"] != OK]
    long = [record for record in failed if record["status"] == TOO_LONG]
    # By clip, as one is unreadable for all its questions; but each question is too long by itself.
    reasons = {
        str(record["id" if record["status"] == TOO_LONG else "clip"]): str(record.get("reason", record["status"]))
        for record in failed
    }
    kind = "samples could not be evaluated"
    if long:
        first = f"{long[0]['id']}: {long[0]['tokens'] or '?'} tokens of {long[0]['limit'] or '?'}"
        kind += f", {len(long)} as too long for the model's context (the first, {first})"
    allowed = float(point.config.job.max_failed_fraction)
    check_failures(kind, len(failed), len(records), allowed, reasons)
    metrics = metrics_of(
        records, benchmark.groups, benchmark.in_headline, benchmark.axes if judge else {}, benchmark.task_weights
    )
    elapsed = time.perf_counter() - started
    seconds["other"] = max(0.0, elapsed - sum(seconds.values()) + cost.ahead)
    metrics |= {
        **_times(folder, seconds, records),
        **({} if cost.pool_seconds is None else {"pool_seconds": cost.pool_seconds}),
        "pool_bytes": cost.pool_bytes,
        **cost.counts,
        **graded,
        **point.more_metrics(records),
        "elapsed_seconds": elapsed,
        **peak_memory(),
        "finished": now(),
    }
    return metrics, records


def _complete_answers(point: Point, folder: PointFolder, answerer: Answerer | None) -> AnswerCost:
    """Take answers of other points over, answer the other open questions, and return the cost."""
    samples = point.benchmark.samples
    log = RecordLog(folder.path / RECORDS, folder.attempt)
    lacking = [sample for sample in samples if sample.id not in log.done]
    if lacking and not point.config.force:
        records, attempts = _answered_elsewhere(folder.path, point.answers, lacking)
        folder.add_attempts(attempts)
        log.append(records)
    missing = [sample for sample in lacking if sample.id not in log.done]
    if len(missing) < len(lacking):
        say(f"videopool: {len(lacking) - len(missing)} answers are taken over from other points of the study")
    if not missing:
        return AnswerCost()
    if point.judge is not None:
        point.judge.check()
    note(require_clips(point.benchmark))
    note(repeated_answers(point.benchmark))
    if point.judge is None:
        note(contradictions(point.benchmark))
    if answerer is None and isinstance(point, ApiPoint):
        answerer = partial(answer_by_api, point)
    elif answerer is None:
        from videopool.evaluation.evaluator import answer_with_weights  # needs Lightning

        answerer = partial(answer_with_weights, point)
    with ask_before_stopping() as stop:
        cost = answerer(missing, log, stop)
    if stop.asked:
        done = len(read_records(log.path))
        raise Stopped(f"{done} of {len(samples)} samples of {folder.path.name} are done")
    return cost


def _answered_elsewhere(
    folder: Path, answers: str, samples: Sequence[Sample]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ungraded answers, on clips as they are now, of points that differ in their judge alone; and their attempts."""
    records: list[dict[str, Any]] = []
    attempts: dict[str, Any] = {}
    lacking = {sample.id: sample.clip for sample in samples}
    for manifest in sorted(folder.parent.glob(f"*/{MANIFEST}")):
        if manifest.parent == folder or not lacking or (read_json(manifest) or {}).get("answers") != answers:
            continue
        for record in read_records(manifest.parent / RECORDS):
            clip = lacking.get(str(record["id"]))
            if clip is not None and record["status"] in ANSWERED and record.get("content") == content_of(clip):
                del lacking[str(record["id"])]
                records.append(ungraded(record))
        attempts |= attempts_of(manifest.parent)
    named = {record.get("attempt") for record in records}
    return records, {name: attempt for name, attempt in attempts.items() if name in named}


def _times(
    folder: PointFolder, seconds: Mapping[str, float], records: Sequence[Mapping[str, Any]] = ()
) -> dict[str, object]:
    """Seconds by kind (of this attempt and, for answering, of all), per sample for the model, and of shared work.

    pool_seconds are those of pooling one clip (on an accelerator, measured once), saliency_seconds those of the tower's
    attention for all frames.
    """
    answered, spent = read_times(folder.path / TIMES)
    per_clip = len(records) / max(1, len({record["clip"] for record in records}))
    return {
        "pool_seconds": spent["pool"] / answered * per_clip if "pool" in spent and answered else None,
        "saliency_seconds": spent.get("saliency") if answered else None,
        "seconds_per_sample": sum(spent.get(kind, 0.0) for kind in MODEL) / answered if answered else None,
        "shared_seconds": sum(spent.get(kind, 0.0) for kind in SHARED) if answered else None,
        "seconds": {kind: round(own, 3) for kind, own in {**seconds, **spent}.items()},
    }
