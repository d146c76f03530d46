"""Measure the norms of one point."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from videopool.benchmarks import require_clips
from videopool.config.errors import Stopped
from videopool.features import ClipDataset, ClipJob
from videopool.inference.read_plan import image_processor_of, read_plan
from videopool.measuring.settings import NormSettings, clip_name
from videopool.measuring.stages import describe_stage
from videopool.norms.meanings import MEANINGS
from videopool.norms.saved import NUMBERS, load_partial, save_arrays
from videopool.notes import note
from videopool.points.lifecycle import check_failures
from videopool.points.point import Point
from videopool.results import PointFolder
from videopool.results.manifest import now, peak_memory
from videopool.results.point import write_json

# Facts about the point for tables and legends.
FACTS = ("model", "lora_alpha", "pooling", "stage", "frames", "visual_tokens", "benchmark", "split")


def measure(
    point: Point, settings: NormSettings, clips: Sequence[ClipJob], folder: PointFolder, about: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the clips that are not measured yet; write norms.json and norms.safetensors.

    Returns metrics and the content of norms.json. Raises PointFailed for too many unreadable clips; Stopped.
    """
    # Imported here, because a finished point needs neither weights nor Lightning.
    from videopool.inference.backbones import point_backbone
    from videopool.inference.feature_key import feature_source
    from videopool.inference.predict import predict
    from videopool.measuring.meter import NormLog, NormMeter, norm_outputs
    from videopool.runtime.interrupts import ask_before_stopping

    config, started = point.config, time.perf_counter()
    backbone = point_backbone(point.model, point.model_identity, point.adapter)
    measured = settings.measurement(len(backbone.tokenizer))
    so_far = load_partial(folder.path, measured)
    # One sample stands for its clip, so that the progress bar counts clips.
    missing = [replace(clip, samples=clip.samples[:1]) for clip in clips if clip_name(clip) not in so_far.done]
    samples = [clip.samples[0] for clip in missing]
    if samples:
        note(require_clips(replace(point.benchmark, samples=samples)))
    processor = image_processor_of(config, backbone)
    plan = read_plan(point.sampler, config.job.reader, processor, point.pooling, together=backbone.together)
    source = feature_source(config, backbone, outputs=norm_outputs(backbone, point.pooling, settings))
    tasks = {clip_name(clip): sorted({sample.task for sample in clip.samples} - {""}) for clip in clips}
    meter = NormMeter(backbone, point, plan, source, settings, measured, tasks)
    if missing:
        log = NormLog(folder.path, measured, so_far, int(config.job.save_every))
        dataset = ClipDataset(missing, plan, point.store, source)
        with ask_before_stopping() as stop:
            predict(config, meter, dataset, log, stop, batch=1, title="measuring")
        log.save()
        if stop.asked:
            raise Stopped(f"{len(so_far.done)} of {len(clips)} clips of {folder.path.name} are done")
    allowed = float(config.job.max_failed_fraction)
    check_failures("clips could not be measured", len(so_far.failed), len(clips), allowed, so_far.failed)
    layers = backbone.feature_states.layers[: point.shape.feature_layers]
    seen = point.shape, layers, point.stage
    stages = {stage.name: describe_stage(stage, *seen) for stage in settings.stages}
    numbers = {
        "about": {**about, "p": str(settings.p), "rules": asdict(settings.rules), "stages": stages},
        "clips": len(so_far.done),
        "failed": so_far.failed,
        "contents": so_far.done,
        **measured.numbers(),
        "lineages": settings.lineages,
        "meaning": MEANINGS,
    }
    save_arrays(folder.path, measured)
    write_json(folder.path / NUMBERS, numbers)
    elapsed = time.perf_counter() - started
    metrics = {
        "n": len(so_far.done),
        "n_failed": len(so_far.failed),
        "seconds": {kind: round(spent, 3) for kind, spent in meter.seconds.items()},
        **meter.frames,
        "elapsed_seconds": elapsed,
        "seconds_per_clip": elapsed / max(1, len(missing)),
        **peak_memory(),
        "finished": now(),
    }
    return metrics, numbers


def result_line(numbers: dict[str, Any]) -> str:
    """A point in one line."""
    ratios = {name: stage["max_over_median"] for name, stage in numbers["stages"].items()}
    listed = ", ".join(f"{name} {'-' if ratio is None else f'{ratio:.2f}'}" for name, ratio in ratios.items())
    return f"{numbers['clips']} clips; largest norm over median: {listed}"
