"""Answer the questions of a point that have no answer yet, and have answers graded."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from videopool.benchmarks import Sample, repeated_answers, require_clips
from videopool.config.errors import Stopped
from videopool.evaluation.judging import grade, store_path, ungraded
from videopool.evaluation.reuse import answered_elsewhere
from videopool.evaluation.work import Work
from videopool.judges import Judge
from videopool.results import (
    PointFailed,
    PointFolder,
    RecordLog,
    ReplyStore,
    metrics_of,
    read_records,
    write_records,
)
from videopool.results.manifest import now, peak_memory_bytes
from videopool.results.point import RECORDS, TIMES
from videopool.results.records import JUDGE_FAILED, OK
from videopool.results.times import MODEL, SHARED, read_times
from videopool.runtime.interrupts import StopRequest, ask_before_stopping
from videopool.runtime.terminal import progress_bar

if TYPE_CHECKING:
    from videopool.points.point import Point

Answerer = Callable[[Sequence[Sample], RecordLog, StopRequest], Work]  # appends records of samples to a log
LISTED_FAILURES = 10


def answer(
    point: "Point", folder: PointFolder, answerer: Answerer | None = None
) -> tuple[dict[str, Any], list[dict[str, object]]]:
    """Answer what a point lacks, have answers graded if it has a judge; then metrics and records of all.

    Raises:
        PointFailed: too many samples could not be evaluated, or a process ended before its time.
        ChatError: the judge, or the API that answers, cannot be used.
        Stopped: the user asked to stop.
    """
    benchmark, judge = point.benchmark, point.judge
    started = time.perf_counter()
    work = _complete_answers(point, folder, answerer or point.answer)
    records = [ungraded(record) for record in read_records(folder.path / RECORDS)]
    seconds = dict(work.seconds)
    graded: dict[str, object] = {}
    if judge is not None:
        began = time.perf_counter()
        records, graded = _graded(point, folder, judge, records)
        seconds["judge"] = time.perf_counter() - began
    _check_failures(records, float(point.config.job.max_failed_fraction))
    metrics = metrics_of(
        records, benchmark.groups, benchmark.in_headline, benchmark.axes if judge else {}, benchmark.task_weights
    )
    seconds["other"] = max(0.0, time.perf_counter() - started - sum(seconds.values()) + work.ahead)
    metrics |= {
        **_times(folder, seconds),
        **work.counts,
        **graded,
        **point.more_metrics(records),
        "elapsed_seconds": time.perf_counter() - started,
        "peak_memory_bytes": peak_memory_bytes(),
        "finished": now(),
    }
    return metrics, records


def _complete_answers(point: "Point", folder: PointFolder, answerer: Answerer) -> Work:
    """Answer what has no answer yet, here or in another point; what that took."""
    samples = point.benchmark.samples
    log = RecordLog(folder.path / RECORDS, folder.attempt)
    try:
        lacking = [sample for sample in samples if sample.id not in log.done]
        if lacking and not point.config.force:
            found, attempts = answered_elsewhere(folder.path, point.answers, lacking)
            folder.add_attempts(attempts)
            log.append(found)
        missing = [sample for sample in lacking if sample.id not in log.done]
        if len(missing) < len(lacking):
            print(f"videopool: {len(lacking) - len(missing)} answers are taken over from other points of the study")
        if not missing:
            return Work()
        if point.judge is not None:
            point.judge.check()
        for line in filter(None, (require_clips(point.benchmark), repeated_answers(point.benchmark))):
            print(f"videopool: {line}", file=sys.stderr)
        with ask_before_stopping() as stop:
            work = answerer(missing, log, stop)
        if stop.asked:
            done = len(read_records(log.path))
            raise Stopped(f"{done} of {len(samples)} samples of {folder.path.name} are done")
        return work
    finally:
        log.close()


def _times(folder: PointFolder, seconds: Mapping[str, float]) -> dict[str, object]:
    """Seconds by kind over all attempts, as far as they were answering; of the model, a sample; of what is shared.

    Args:
        seconds: of this attempt.
    """
    answered, spent = read_times(folder.path / TIMES)
    whole = {**seconds, **spent}
    return {
        "seconds_per_sample": sum(spent.get(kind, 0.0) for kind in MODEL) / answered if answered else None,
        "shared_seconds": sum(spent.get(kind, 0.0) for kind in SHARED) if answered else None,
        "seconds": {kind: round(one, 3) for kind, one in whole.items()},
    }


def _graded(
    point: "Point", folder: PointFolder, judge: Judge, records: Sequence[dict[str, object]]
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Records with the judge's verdicts, in place of those without; and what that took.

    Replies are kept as they come, so that a point that is stopped here goes on where it was.
    """
    store = ReplyStore(store_path(point.config, judge))
    progress = partial(progress_bar, f"judge {folder.path.name}")
    with ask_before_stopping() as stop:
        graded, usage = grade(judge, store, records, point.benchmark.axes, lambda: stop.asked, progress)
    write_records(folder.path / RECORDS, graded)
    if stop.asked and any(record["status"] == JUDGE_FAILED for record in graded):
        raise Stopped(f"all samples of {folder.path.name} are answered, and not all are graded")
    return graded, {"judge": judge.id, "judge_replies": str(store.path), **usage.as_dict()}


def _check_failures(records: Sequence[dict[str, object]], allowed: float) -> None:
    """Raises PointFailed if too many samples could not be evaluated, or none was."""
    failed = [record for record in records if record["status"] != OK]
    if len(failed) == len(records) or len(failed) > allowed * len(records):
        clips = {str(record["clip"]): str(record.get("reason", record["status"])) for record in failed}
        listed = "".join(f"\n    {name}: {reason}" for name, reason in list(clips.items())[:LISTED_FAILURES])
        more = f"\n    and {len(clips) - LISTED_FAILURES} more" if len(clips) > LISTED_FAILURES else ""
        raise PointFailed(
            f"{len(failed)} of {len(records)} samples could not be evaluated "
            f"(allowed: job.max_failed_fraction={allowed:g}):{listed}{more}"
        )
