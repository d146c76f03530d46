"""One training run: the model made ready, the steps that are left, the export, the figures of the run."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from videopool.config.errors import Stopped
from videopool.inference.backbones import own_backbone
from videopool.inference.feature_key import feature_source
from videopool.inference.load_plan import image_processor_of, load_plan
from videopool.models import Backbone
from videopool.models.checkpoint import probe
from videopool.models.lora import checkpoint_gradients, make_trainable, restore, training_mode
from videopool.notes import note
from videopool.results import PointFailed
from videopool.runtime.interrupts import ask_before_stopping, ignore_interrupts
from videopool.runtime.ranks import START_METHOD
from videopool.tracking.training import TrainingCurves
from videopool.training.batches import (
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
from videopool.training.checkpoints import OPTIMISER, WEIGHTS, Checkpoints, Progress, read_optimiser, read_weights
from videopool.training.export import export_run, step_folder
from videopool.training.facts import TrainingFacts, steps_within
from videopool.training.figures import nothing, training_figures
from videopool.training.loop import Keeper, TakeSteps, fit
from videopool.training.module import Optimisation, Tuner
from videopool.training.point import EXPORT, TrainingPoint
from videopool.video import UniformSampler


def train(
    point: TrainingPoint, folder: Path, rank: int = 0, curves: TrainingCurves | None = None, take_steps: TakeSteps = fit
) -> dict[str, Any]:
    """Take the steps that a run lacks and export it.

    Args:
        curves: get each line of the log; None: nobody does.
        rank: of this process, where several take the steps together; only the first exports.
        take_steps: that are left.

    Returns:
        The figures of the run, for metrics.json; none from other processes than the first.

    Raises:
        UserError: the data cannot be used, or the run failed.
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
    sources = {kind: feature_source(alike, backbone, kind) for kind in ("video", "image")}
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
            lambda step, weights: export_run(
                point, step_folder(folder, step), weights, told, point.recipe(step), facts.upto(step)
            ),
            curves or TrainingCurves(None),
        )
        if first < schedule.steps:
            take_steps(config, tuner, keeper, schedule.micros, point.precision)
        for line in point.store.finish():
            note(line, every_rank=True)
        if rank > 0:
            return {}
        last = checkpoints.last()
        assert last is not None
        if last[0].step < schedule.steps:
            raise Stopped(f"{last[0].step} of {schedule.steps} steps of {folder.name} are done")
    if not last[0].tokens:
        raise PointFailed(f"{nothing(encoder, last[0])}: nothing was learned")
    best = checkpoints.best() if config.job.export == "best" else None
    if config.job.export == "best" and best is None:
        raise PointFailed("job.export=best: no held-out example could be used, so there is no best step; say last")
    chosen, behind = (last[1] / WEIGHTS, schedule.steps) if best is None else (best[2], best[0])
    export_run(point, folder / EXPORT, read_weights(chosen), told, point.recipe(), facts.upto(behind))
    return training_figures(
        point, folder, last[0], checkpoints, encoder, schedule, first, time.perf_counter() - started
    )


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
