"""job=norms: one point's norms of visual tokens, from configuration to numbers and figures."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from videopool.benchmarks import require_clips
from videopool.features import ClipDataset, ClipJob
from videopool.jobs.build import jsonable
from videopool.jobs.contents import States, content_of, keep_states, listed, states_of, touched
from videopool.jobs.errors import Stopped
from videopool.jobs.evaluate import Point
from videopool.jobs.load_plan import image_processor_of, load_plan
from videopool.jobs.norm_settings import NormSettings, check, choose_clips, clip_name, identify, read_settings
from videopool.jobs.norm_stages import describe_stage
from videopool.jobs.outcome import COMPLETE, Outcome
from videopool.norms.meanings import MEANINGS
from videopool.norms.saved import NUMBERS, PARTIAL, Progress, forget, load_partial, measured_contents, save_arrays
from videopool.results import PointFailed, PointFolder, fingerprint
from videopool.results.manifest import git_state, hardware, now, peak_memory_bytes, versions
from videopool.results.point import write_json

# What tables and legends say about the point.
TOLD = ("model", "lora_alpha", "pooling", "stage", "frames", "visual_tokens", "benchmark", "split")
LISTED_FAILURES = 10


def norms(config: DictConfig) -> Outcome:
    """Measure one point, or go on with it, or find it finished."""
    torch.manual_seed(int(config.seed))
    job = check(config)
    point = Point(config)
    clips = choose_clips(point, job["clips"])
    what = identify(job, point, clips)
    folder = PointFolder(Path(config.results_dir) / config.study, f"norms-{point.name}", fingerprint(what))
    finished = Outcome(COMPLETE, folder.path.name, "finished before", str(folder.path), fresh=False)
    states = states_of({clip_name(clip): clip.clip for clip in clips})
    if folder.finished and not config.force and not _changed(folder, clips, states):
        return finished
    settings = read_settings(job, point)
    point.check()
    with folder:
        if config.force:
            folder.clear()
            forget(folder.path)
        elif changed := _changed(folder, clips, states):
            told = f"{len(changed)} ({listed(changed)})"
            line = f"{folder.path.name}: clips with other contents than when they were measured: {told}"
            print(f"videopool: {line}; all are measured again", file=sys.stderr)
            folder.clear()
            forget(folder.path)
        if folder.finished:  # meanwhile, by another process
            return finished
        about = {name: value for name, value in point.describe().items() if name in TOLD}
        about["checkpoint"] = point.adapter and point.adapter["checkpoint"]
        manifest = {
            "measured": about,  # not "point": tables of scores leave it out
            "identity": what,
            "config": jsonable(config),
            "versions": versions(),
            "reader": config.job.reader,
            "attention": config.model.attention,
            "git": git_state(),
            "hardware": hardware(),
            "started": now(),
        }
        folder.write_manifest(manifest)
        keep_states(folder, states)
        from videopool.jobs.norm_figures import draw_point
        from videopool.jobs.norm_wandb import log_norms
        from videopool.jobs.wandb_run import wandb_run

        try:
            content = {**jsonable(config), "point": {"name": folder.path.name, **about}}
            with wandb_run(config, folder.path.parent, "norms", folder.path.name, content) as run:
                metrics, numbers = _measure(point, settings, clips, folder, about)
                draw_point(folder.path)
                if run is not None:
                    log_norms(run, folder.path)
                folder.write_metrics(metrics)
                (folder.path / PARTIAL).unlink(missing_ok=True)
        except Exception as error:
            folder.write_failure(str(error) or type(error).__name__, {"time": now()})
            raise
        return Outcome(COMPLETE, folder.path.name, _result(numbers), str(folder.path))


def _changed(folder: PointFolder, clips: Sequence[ClipJob], states: States) -> list[str]:
    """Names of the clips whose contents are others than when they were measured."""
    if not (old := touched(folder, states)):
        return []
    before = measured_contents(folder.path)
    paths = {clip_name(clip): clip.clip for clip in clips}
    return sorted(name for name in old & before.keys() if content_of(paths[name]) != before[name])


def _measure(
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
    from videopool.jobs.frame_source import frame_source
    from videopool.jobs.interrupts import ask_before_stopping
    from videopool.jobs.norm_meter import NormLog, NormMeter, Parts
    from videopool.jobs.predicting import predict
    from videopool.jobs.weights import point_backbone

    config, pooling, started = point.config, point.pooling, time.perf_counter()
    measured = settings.measurement()
    progress = load_partial(folder.path, measured)
    missing = [clip for clip in clips if clip_name(clip) not in progress.done]
    samples = [clip.samples[0] for clip in missing]
    if samples and (line := require_clips(replace(point.benchmark, samples=samples))):
        print(f"videopool: {line}", file=sys.stderr)
    backbone = point_backbone(point)
    plan = load_plan(point.sampler, config.job.reader, image_processor_of(config, backbone), pooling)
    parts = Parts(point.store, frame_source(config, backbone), backbone, settings)
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


def _result(numbers: dict[str, Any]) -> str:
    """A point in one line."""
    ratios = {name: stage["max_over_median"] for name, stage in numbers["stages"].items()}
    told = ", ".join(f"{name} {'-' if ratio is None else f'{ratio:.2f}'}" for name, ratio in ratios.items())
    return f"{numbers['clips']} clips; largest norm over median: {told}"
