"""Answer the questions of a point that have no record yet."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from videopool.benchmarks import require_clips
from videopool.features import ClipDataset, LoadPlan
from videopool.jobs.errors import Stopped
from videopool.jobs.evaluator import AnswerSettings, Evaluator, group_by_clip
from videopool.jobs.frame_source import frame_source
from videopool.jobs.interrupts import ask_before_stopping
from videopool.jobs.predicting import predict
from videopool.jobs.weights import shared_backbone
from videopool.pooling import ImageGrid
from videopool.results import PointFailed, PointFolder, RecordLog, metrics_of, read_records
from videopool.results.manifest import now, peak_memory_bytes
from videopool.results.records import OK

if TYPE_CHECKING:
    from videopool.jobs.evaluate import Point

LISTED_FAILURES = 10


def answer(point: "Point", folder: PointFolder) -> tuple[dict[str, Any], list[dict[str, object]]]:
    """Records of what a point lacks, then metrics and records of all.

    Raises:
        PointFailed: too many clips cannot be read, or a process ended before its time.
        Stopped: the user asked to stop.
    """
    config, model = point.config, point.model
    started = time.perf_counter()
    log = RecordLog(folder.path / "records.jsonl")
    try:
        missing = [sample for sample in point.benchmark.samples if sample.id not in log.done]
        if missing and (line := require_clips(point.benchmark)):
            print(f"videopool: {line}", file=sys.stderr)
        adapter = point.adapter or {"checkpoint": None, "identity": "", "alpha": None, "projector": None}
        backbone = shared_backbone(
            model,
            point.model_identity,
            adapter["checkpoint"],
            adapter["identity"],
            adapter["alpha"],
            adapter["projector"],
        )
        benchmark = point.benchmark
        settings = AnswerSettings(point.prompt, benchmark.scoring, benchmark.max_new_tokens, config.compat.scoring)
        store, pooling = point.store, point.pooling
        tile = pooling.tile if isinstance(pooling, ImageGrid) else None
        layout = f"{type(pooling).__module__}.{type(pooling).__qualname__} {pooling.label}"
        plan = LoadPlan(point.sampler, config.job.reader, backbone.image_processor, tile, layout)
        source = frame_source(config, backbone)
        evaluator = Evaluator(backbone, pooling, point.stage, settings, store, plan, source)
        dataset = ClipDataset(group_by_clip(missing), plan, store, source)
        if missing:
            size = max(1, min(int(config.job.max_clips), int(config.job.max_visual_tokens) // point.visual_tokens))
            with ask_before_stopping() as stop:
                predict(config, evaluator, dataset, log, stop, size)
            if stop.asked:
                done = len(read_records(log.path))
                raise Stopped(f"{done} of {len(point.benchmark.samples)} samples of {folder.path.name} are done")
    finally:
        log.close()
    elapsed = time.perf_counter() - started
    records = read_records(folder.path / "records.jsonl")
    _judge_failures(records, float(config.job.max_failed_fraction))
    metrics = metrics_of(records, point.benchmark.groups, point.benchmark.in_headline)
    seconds = dict(evaluator.seconds)
    # Loaders decode and preprocess beside the model, so their seconds are not part of the elapsed time.
    ahead = sum(seconds.get(kind, 0.0) for kind in ("decode", "preprocess"))
    seconds["other"] = max(0.0, elapsed - sum(seconds.values()) + ahead)
    metrics |= {
        "seconds_per_sample": elapsed / max(1, len(missing)),
        "seconds": {kind: round(spent, 3) for kind, spent in seconds.items()},
        **evaluator.frames,
        "elapsed_seconds": elapsed,
        "peak_memory_bytes": peak_memory_bytes(),
        "finished": now(),
    }
    return metrics, records


def _judge_failures(records: Sequence[dict[str, object]], allowed: float) -> None:
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
