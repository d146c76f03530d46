"""Measure one point's norms, and judge what failed."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from videopool.benchmarks import require_clips
from videopool.config.errors import Stopped
from videopool.features import ClipDataset, ClipJob
from videopool.inference.load_plan import image_processor_of, load_plan
from videopool.measuring.settings import NormSettings, clip_name
from videopool.measuring.stages import describe_stage
from videopool.norms.meanings import MEANINGS
from videopool.norms.saved import NUMBERS, Progress, load_partial, save_arrays
from videopool.notes import note
from videopool.points.point import Point
from videopool.results import PointFailed, PointFolder
from videopool.results.manifest import now, peak_memory_bytes
from videopool.results.point import write_json

# What tables and legends say about the point.
TOLD = ("model", "lora_alpha", "pooling", "stage", "frames", "visual_tokens", "benchmark", "split")


LISTED_FAILURES = 10


def measure(
    point: Point, settings: NormSettings, clips: Sequence[ClipJob], folder: PointFolder, about: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the clips that are not measured yet; write norms.json and norms.safetensors.

    Returns:
        Metrics, and what norms.json holds.

    Raises:
        PointFailed: too many clips cannot be read.
        Stopped: the user asked to stop.
    """
    # What needs weights or Lightning is imported here: a finished point needs none of them.
    from videopool.inference.backbones import point_backbone
    from videopool.inference.feature_key import feature_source
    from videopool.inference.predict import predict
    from videopool.measuring.meter import NormLog, NormMeter, Parts
    from videopool.runtime.interrupts import ask_before_stopping

    config, pooling, started = point.config, point.pooling, time.perf_counter()
    measured = settings.measurement()
    progress = load_partial(folder.path, measured)
    missing = [clip for clip in clips if clip_name(clip) not in progress.done]
    samples = [clip.samples[0] for clip in missing]
    if samples and (line := require_clips(replace(point.benchmark, samples=samples))):
        note(line)
    backbone = point_backbone(point.model, point.model_identity, point.adapter)
    plan = load_plan(point.sampler, config.job.reader, image_processor_of(config, backbone), pooling)
    parts = Parts(point.store, feature_source(config, backbone), backbone, settings)
    meter = NormMeter(backbone, pooling, point.stage, plan, parts, point.prompt, settings, measured)
    log = NormLog(folder.path, measured, progress, int(config.job.save_every))
    if missing:
        # One sample stands for its clip, so that the progress bar counts clips.
        jobs = [replace(clip, samples=clip.samples[:1]) for clip in missing]
        dataset = ClipDataset(jobs, plan, parts.all, parts.tower.sources[0])
        with ask_before_stopping() as stop:
            predict(config, meter, dataset, log, stop, batch=1)
        log.save()
        if stop.asked:
            raise Stopped(f"{len(progress.done)} of {len(clips)} clips of {folder.path.name} are done")
    _judge_failures(progress, len(clips), float(config.job.max_failed_fraction))
    about |= {"p": str(settings.p), "rules": asdict(settings.rules)}
    about["stages"] = {
        stage.name: describe_stage(stage, point.shape, parts.feature_layers, point.stage) for stage in settings.stages
    }
    numbers = {
        "about": about,
        "clips": len(progress.done),
        "failed": progress.failed,
        "contents": progress.done,
        **measured.numbers(),
        "meaning": MEANINGS,
    }
    save_arrays(folder.path, measured)
    write_json(folder.path / NUMBERS, numbers)
    elapsed = time.perf_counter() - started
    metrics = {
        "n": len(progress.done),
        "n_failed": len(progress.failed),
        "seconds": {kind: round(spent, 3) for kind, spent in meter.seconds.items()},
        **meter.frames,
        "elapsed_seconds": elapsed,
        "seconds_per_clip": elapsed / max(1, len(missing)),
        "peak_memory_bytes": peak_memory_bytes(),
        "finished": now(),
    }
    return metrics, numbers


def _judge_failures(progress: Progress, total: int, allowed: float) -> None:
    """Raises PointFailed if too many clips could not be used, or none could."""
    failed = progress.failed
    if progress.done and len(failed) <= allowed * total:
        return
    listed = "".join(f"\n    {name}: {reason}" for name, reason in list(failed.items())[:LISTED_FAILURES])
    more = f"\n    and {len(failed) - LISTED_FAILURES} more" if len(failed) > LISTED_FAILURES else ""
    raise PointFailed(
        f"{len(failed)} of {total} clips could not be measured "
        f"(allowed: job.max_failed_fraction={allowed:g}):{listed}{more}"
    )


def result_line(numbers: dict[str, Any]) -> str:
    """A point in one line."""
    ratios = {name: stage["max_over_median"] for name, stage in numbers["stages"].items()}
    told = ", ".join(f"{name} {'-' if ratio is None else f'{ratio:.2f}'}" for name, ratio in ratios.items())
    return f"{numbers['clips']} clips; largest norm over median: {told}"
