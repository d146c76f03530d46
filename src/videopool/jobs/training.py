"""One training run: the model made ready, the steps that are left, the export, the figures of the run."""

import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader

from videopool.files import whole, whole_folder
from videopool.jobs.build import plain
from videopool.jobs.errors import Stopped
from videopool.jobs.finetune import EXPORT, LISTED, TrainingPoint
from videopool.jobs.frame_source import frame_source
from videopool.jobs.interrupts import ask_before_stopping, ignore_interrupts
from videopool.jobs.load_plan import image_processor_of, load_plan
from videopool.jobs.pooling_settings import pooling_settings
from videopool.jobs.predicting import START_METHOD
from videopool.jobs.training_batches import (
    HELD_OUT,
    Asking,
    Encoder,
    HeldOutRequests,
    Lesson,
    MicroBatch,
    RequestedBatches,
    Schedule,
    TrainingRequests,
)
from videopool.jobs.training_checkpoint import OPTIMISER, WEIGHTS, Checkpoints, Progress, read_optimiser, read_weights
from videopool.jobs.training_facts import TrainingFacts, steps_within
from videopool.jobs.training_run import BAD_BATCH, Keeper, fit
from videopool.jobs.tuner import Optimisation, Tuner
from videopool.jobs.wandb_training import TrainingCurves
from videopool.jobs.weights import own_backbone
from videopool.models import Backbone
from videopool.models.export import Trained, export
from videopool.models.lora import checkpoint_gradients, make_trainable, restore, training_mode
from videopool.models.probe import probe
from videopool.pooling import Adaptive
from videopool.results import PointFailed, ResultsError
from videopool.results.manifest import now, peak_memory_bytes
from videopool.results.point import TRAINING_LOG, read_training_log
from videopool.video import UniformSampler

LEFT_OUT = "left_out.jsonl"
EXPORTS = "exports"  # of the weights behind some steps


def start_over(folder: Path) -> None:
    """Forget an earlier run."""
    for name in ("checkpoints", EXPORT, EXPORTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (TRAINING_LOG, LEFT_OUT, BAD_BATCH):
        (folder / name).unlink(missing_ok=True)


def train(point: TrainingPoint, folder: Path, rank: int = 0, curves: TrainingCurves | None = None) -> dict[str, Any]:
    """Take the steps that a run lacks and export it.

    Args:
        curves: get each line of the log; None: nobody does.
        rank: of this process, where several take the steps together; only the first exports.

    Returns:
        The figures of the run, for metrics.json; none from other processes than the first.

    Raises:
        any of USER_ERRORS: the data cannot be used, or the run failed.
        Stopped: the user asked to stop.
    """
    config, settings, started = point.config, point.settings, time.perf_counter()
    checkpoints = Checkpoints(folder / "checkpoints")
    backbone = _trainable_backbone(point)
    told = probe(backbone)
    kept = checkpoints.last()
    progress, kept_folder = kept or (Progress(), None)
    first = progress.step
    mixture, held = point.split
    encoder = Encoder(backbone.tokenizer, point.layout, _places(backbone), point.limits())
    steps = steps_within(point, encoder)
    schedule = Schedule(mixture, encoder, steps, int(settings["global_batch"]), int(settings["micro_batch"]))
    facts = TrainingFacts(point, schedule)
    lessons = [Lesson(example, encoded, HELD_OUT) for example in held if (encoded := encoder(example)) is not None]
    processor, still = image_processor_of(config, backbone), point.image_pooling or point.pooling
    plans = {
        "video": load_plan(point.sampler, config.job.reader, processor, point.pooling),
        "image": load_plan(UniformSampler(1), config.job.reader, processor, still, still=True),
    }
    alike = _as_evaluated(config)
    sources = {kind: frame_source(alike, backbone, kind) for kind in ("video", "image")}
    asking = Asking(plans, point.store, sources)

    def loader(kind: str, rank: int, world: int) -> DataLoader[MicroBatch]:
        requests: Any
        if kind == "train":
            requests, ahead = TrainingRequests(schedule, asking, first, rank, world), _next_epoch(schedule, first)
        else:
            requests, ahead = HeldOutRequests(lessons, asking, schedule.micro, rank, world), iter(lessons)
        workers = int(config.job.workers) if any(asking(lesson).must_read for lesson in ahead) else 0
        return DataLoader(
            RequestedBatches(plans),
            sampler=requests,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=ignore_interrupts if workers else None,
            multiprocessing_context=START_METHOD if workers else None,
        )

    optimisation = Optimisation(
        schedule.steps,
        float(settings["rate"]),
        float(settings["warmup"]),
        float(settings["floor"]),
        (float(settings["betas"][0]), float(settings["betas"][1])),
        float(settings["weight_decay"]),
    )
    tuner = Tuner(
        backbone, point.pooling, point.stage, point.store, plans, sources, point.image_pooling, optimisation,
        point.seed, first, loader,
    )  # fmt: skip
    training_mode(backbone)
    if kept_folder is not None:
        restore(backbone, read_weights(kept_folder / WEIGHTS))
        tuner.optimiser_state = read_optimiser(kept_folder / OPTIMISER)
        tuner.ema, tuner.failures = progress.ema, dict(progress.failures)
        print(f"        {folder.name}: going on behind step {first} of {schedule.steps}", flush=True)
    seen = min(mixture.length(1), schedule.steps * schedule.batch) + len(held)
    with ask_before_stopping() as stop:
        every = int(settings["validation"]["every"]) if lessons else 0
        allowed = math.floor(float(config.job.max_failed_fraction) * seen)
        keeper = Keeper(
            folder,
            progress,
            schedule.steps,
            int(config.job.checkpoint_every),
            every,
            stop,
            allowed,
            encoder.refused,
            int(config.job.export_every),
            lambda step, weights: _export(
                point, step_folder(folder, step), weights, told, point.recipe(step), facts.upto(step)
            ),
            curves or TrainingCurves(None),
        )
        if first < schedule.steps:
            fit(config, tuner, keeper, schedule.micros, point.precision)
        for line in point.store.finish():
            print(f"videopool: {line}", file=sys.stderr)
        if rank > 0:
            return {}
        last = checkpoints.last()
        assert last is not None
        if last[0].step < schedule.steps:
            raise Stopped(f"{last[0].step} of {schedule.steps} steps of {folder.name} are done")
    if not last[0].tokens:
        raise PointFailed(f"{_nothing(encoder, last[0])}: nothing was learned")
    best = checkpoints.best() if config.job.export == "best" else None
    if config.job.export == "best" and best is None:
        raise PointFailed("job.export=best: no held-out example could be used, so there is no best step; say last")
    chosen, behind = (last[1] / WEIGHTS, schedule.steps) if best is None else (best[2], best[0])
    _export(point, folder / EXPORT, read_weights(chosen), told, point.recipe(), facts.upto(behind))
    return _figures(point, folder, last[0], checkpoints, encoder, schedule, first, time.perf_counter() - started)


def _trainable_backbone(point: TrainingPoint) -> Backbone:
    backbone = own_backbone(point.model)
    torch.manual_seed(point.seed)  # of LoRA's first weights
    make_trainable(backbone, point.settings["lora"])
    if point.settings["checkpoint_gradients"]:
        checkpoint_gradients(backbone)
    return backbone


def _places(backbone: Backbone) -> dict[str, str]:
    return {kind: backbone.tokenizer.convert_ids_to_tokens(number) for kind, number in backbone.media_ids.items()}


def _as_evaluated(config: DictConfig) -> DictConfig:
    """The configuration that features are made under: without the trainer's autocast, as evaluation makes them."""
    alike = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(alike, DictConfig)
    alike.trainer.precision = None
    return alike


def _next_epoch(schedule: Schedule, first: int) -> Iterator[Lesson]:
    """Lessons from a step on, those of an epoch."""
    count = min((schedule.steps - first) * schedule.batch, schedule.mixture.length(1))
    for place in range(first * schedule.batch, first * schedule.batch + count):
        yield from schedule.lessons(place, 1)


def step_folder(folder: Path, step: int) -> Path:
    """Where a run puts the weights behind one of its steps."""
    return folder / EXPORTS / f"step-{step:06d}"


def _export(
    point: TrainingPoint,
    folder: Path,
    weights: dict[str, Tensor],
    told: list[float],
    recipe: str,
    facts: dict[str, Any],
) -> None:
    lora = point.settings["lora"]
    pooling = point.pooling
    reference: dict[str, Any] = {"num_frames": point.sampler.num}
    if isinstance(pooling, Adaptive):
        size = (point.sampler.num, point.shape.height, point.shape.width)
        reference |= {"pooling_method": "avg", "pooling_shape": list(pooling.out_shape(*size))}
    trained = Trained(
        source=str(point.model["source"]),
        probe=told,
        config=_config_of(point),
        pooling=pooling_settings(point.config, pooling),
        frames=plain(point.config.frames),
        recipe=recipe,
        facts=facts,
        lora=lora or {},
        reference=reference,
    )
    try:
        with whole_folder(folder) as part:
            export(part, weights, trained)
    except (OSError, SafetensorError) as error:
        raise ResultsError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _nothing(encoder: Encoder, progress: Progress) -> str:
    """Why no token was learned."""
    why = [*progress.failures.values(), *encoder.refused.values()]
    return f"no example could be used, as {why[0]}" if why else "no example has a token to learn"


def _config_of(point: TrainingPoint) -> dict[str, Any]:
    from videopool.models import load_config

    return dict(load_config(point.model["source"], point.model["revision"], point.model["rope_factor"]).to_dict())


def _figures(
    point: TrainingPoint,
    folder: Path,
    progress: Progress,
    checkpoints: Checkpoints,
    encoder: Encoder,
    schedule: Schedule,
    first: int,
    elapsed: float,
) -> dict[str, Any]:
    """What metrics.json says; the entries that were left out go to a file of their own."""
    rows = read_training_log(folder)
    held_out = [row for row in rows if "validation_loss" in row]
    steps = [row for row in rows if "loss" in row]
    refused = [line for source in point.sources for line in source.refused] + sorted(encoder.refused.values())
    with whole(folder / LEFT_OUT) as part, part.open("w", encoding="utf-8") as file:
        for kind, lines in (("refused", refused), ("unreadable", sorted(progress.failures.values()))):
            file.writelines(json.dumps({"kind": kind, "why": line}, ensure_ascii=False) + "\n" for line in lines)
    best = checkpoints.best()
    for line in sorted(encoder.refused.values())[:LISTED]:
        print(f"videopool: left out: {line}", file=sys.stderr)
    if encoder.cut:
        print(f"videopool: {len(encoder.cut)} conversations were cut at their end", file=sys.stderr)
    return {
        "steps": progress.step,
        "loss": progress.ema,
        "first_loss": steps[0]["loss"],
        "validation_loss": held_out[-1]["validation_loss"] if held_out else None,
        "best_validation_loss": best and best[1],
        "best_step": best and best[0],
        "examples": progress.step * schedule.batch,
        "labelled_tokens": progress.tokens,
        "n_refused": len(refused),
        "n_unreadable": len(progress.failures),
        "n_cut": len(encoder.cut),
        "seconds": {kind: round(spent, 3) for kind, spent in progress.seconds.items()},
        **progress.frames,
        "elapsed_seconds": elapsed,  # of this attempt
        "seconds_per_step": elapsed / max(1, schedule.steps - first),
        "peak_memory_bytes": peak_memory_bytes(),
        "finished": now(),
    }
