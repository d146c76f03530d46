"""One training run: an attempt at its folder, the remaining steps, the export, the metrics.

Importing this imports Lightning, which a finished run does not need.
"""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from videopool.config.errors import ConfigError, Stopped
from videopool.inference.backbones import own_backbone
from videopool.inference.feature_key import feature_source
from videopool.inference.read_plan import image_processor_of, read_plan
from videopool.models.checkpoint import probe
from videopool.models.lora import checkpoint_gradients, make_trainable, restore, training_mode
from videopool.models.tower_outputs import tower_outputs
from videopool.notes import note
from videopool.points.lifecycle import attempt
from videopool.results import PointFailed, PointFolder
from videopool.runtime.interrupts import ask_before_stopping
from videopool.runtime.log import say
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.tracking.training import TrainingCurves, training_curves
from videopool.training.batches import HELD_OUT, EncodedExample, Encoder, Loaders, Schedule
from videopool.training.checkpoints import OPTIMISER, WEIGHTS, Checkpoints, TrainingState, read_optimiser, read_weights
from videopool.training.export import BAD_BATCH, Exporter, start_over, training_metrics
from videopool.training.loop import StepCallback, TakeSteps, fit
from videopool.training.module import Optimisation, Tuner
from videopool.training.point import TrainingPoint
from videopool.video import UniformSampler


def take_part(point: TrainingPoint, folder: PointFolder, rank: int) -> Outcome:
    """Take the steps as another process than the first, which has the claim, keeps the files and evaluates."""
    point.check()
    _train(point, folder.path, rank, TrainingCurves(None), fit)
    return Outcome(COMPLETE, folder.path.name, f"took part as process {rank}", fresh=False)


def train_point(
    point: TrainingPoint,
    folder: PointFolder,
    identity: dict[str, object],
    keep_media: Callable[[], None],
    take_steps: TakeSteps = fit,
) -> str:
    """Train in a folder; `keep_media` keeps the media's states, with the claim. Returns one line about the result.

    Raises UserError if the data cannot be used or the run failed, Stopped if the user asked to stop.
    """
    facts = point.describe()
    with folder:
        keep_media()
        if point.config.force:
            folder.clear()
            start_over(folder.path)
        if folder.finished:
            return "finished meanwhile"
        with attempt(folder, point.config, {"training": facts, "identity": identity}):
            (folder.path / BAD_BATCH).unlink(missing_ok=True)
            with training_curves(point.config, folder.path, facts) as curves:
                metrics = _train(point, folder.path, 0, curves, take_steps)
                curves.finish(metrics)
            folder.write_metrics(metrics)
    held_out = metrics["validation_loss"]
    loss = f"{metrics['steps']} steps, loss {metrics['loss']:.3f}"
    return loss if held_out is None else f"{loss}, {held_out:.3f} on held-out ones"


def _train(
    point: TrainingPoint, folder: Path, rank: int, curves: TrainingCurves, take_steps: TakeSteps
) -> dict[str, Any]:
    """Take a run's remaining steps and export it. Returns its metrics; none in other processes than the first."""
    config, settings, started = point.config, point.settings, time.perf_counter()
    checkpoints = Checkpoints(folder / "checkpoints")
    backbone = own_backbone(point.model)
    torch.manual_seed(point.seed)  # of LoRA's first weights
    make_trainable(backbone, settings["lora"])
    if settings["checkpoint_gradients"]:
        checkpoint_gradients(backbone)
    weights_of_base = probe(backbone)
    progress, kept = checkpoints.last() or (TrainingState(), None)
    first = progress.step
    encoder = Encoder(backbone, point.layout, point.limits())
    mixture, held = point.split
    steps = _steps(point, encoder)
    schedule = Schedule(mixture, encoder, steps, int(settings["global_batch"]), int(settings["micro_batch"]))
    held_out = [EncodedExample(example, encoded, HELD_OUT) for example in held if (encoded := encoder(example))]
    reader, processor = config.job.reader, image_processor_of(config, backbone)
    plans = {
        "video": read_plan(point.sampler, reader, processor, point.pooling),
        "image": read_plan(UniformSampler(1), reader, processor, point.poolings["image"], still=True),
    }
    as_evaluated = deepcopy(config)
    as_evaluated.trainer.precision = None  # features are made without the trainer's autocast
    outputs = {kind: tower_outputs(point.poolings[kind], backbone.shape, backbone.name) for kind in plans}
    sources = {kind: feature_source(as_evaluated, backbone, kind, own) for kind, own in outputs.items()}
    loaders = Loaders(schedule, first, held_out, plans, sources, point.store, int(config.job.workers))
    rate, warmup, floor, decay = (float(settings[name]) for name in ("rate", "warmup", "floor", "weight_decay"))
    betas = float(settings["betas"][0]), float(settings["betas"][1])
    optimisation = Optimisation(steps, rate, warmup, floor, betas, decay)
    tuner = Tuner(backbone, point, optimisation, progress, loaders)
    training_mode(backbone)
    if kept is not None:
        restore(backbone, read_weights(kept / WEIGHTS))
        tuner.optimiser_state = read_optimiser(kept / OPTIMISER)
        say(f"        {folder.name}: continuing after step {first} of {steps}")
    exporter = Exporter(point, folder, schedule, weights_of_base)
    seen = min(mixture.length(1), steps * schedule.batch) + len(held)
    with ask_before_stopping() as stop:
        allowed = math.floor(float(config.job.max_failed_fraction) * seen)
        every = int(settings["validation"]["every"]) if held_out else 0
        callback = StepCallback(exporter, progress, every, allowed, stop, curves)
        if first < steps:
            take_steps(config, tuner, callback, schedule.micros, point.precision)
        for line in point.store.finish():
            note(line, every_rank=True)
        if rank > 0:
            return {}
        last = checkpoints.last()  # read again, as other processes may have taken the steps
        assert last is not None
        progress, kept = last
        if progress.step < steps:
            raise Stopped(f"{progress.step} of {steps} steps of {folder.name} are done")
    if not progress.tokens:
        reasons = [*progress.failures.values(), *encoder.refused.values()]
        why = f"no example could be used, as {reasons[0]}" if reasons else "no example has a token to learn"
        raise PointFailed(f"{why}: nothing was learned")
    if config.job.export == "last":
        exporter.result(steps, read_weights(kept / WEIGHTS))
    elif best := checkpoints.best():
        exporter.result(best[0], read_weights(best[2]))
    else:
        raise PointFailed("job.export=best: no held-out example could be used, so there is no best step; say last")
    return training_metrics(exporter, progress, first, time.perf_counter() - started)


def _steps(point: TrainingPoint, encoder: Encoder) -> int:
    """Optimiser steps of a run: as configured, or as many as training.tflops pays for. Raises ConfigError for none."""
    budget = point.settings["tflops"]
    if budget is None:
        return point.steps
    mixture = point.split[0]
    examples = (mixture.at(place)[1] for place in range(mixture.length(1)))
    costs = [
        point.flops_of(example.kind, len(encoded.input_ids)) for example in examples if (encoded := encoder(example))
    ]
    step = sum(costs) / max(1, len(costs)) * int(point.settings["global_batch"])
    steps = round(budget * 1e12 / step) if costs else 0
    if steps < 1:
        raise ConfigError(f"training.tflops={budget:g} is not enough for one step, which takes {step / 1e12:.3g}")
    return steps
