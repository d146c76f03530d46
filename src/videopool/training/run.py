"""One training run: an attempt at its folder, the remaining steps, the export, the metrics.

Importing this imports Lightning, which a finished run does not need.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from videopool.config.errors import ConfigError, Stopped
from videopool.inference.backbones import own_backbone
from videopool.inference.devices import on_devices
from videopool.inference.feature_key import feature_source
from videopool.inference.predict import lines_watched, strategy_of
from videopool.inference.read_plan import image_processor_of, read_plan
from videopool.models.checkpoint import probe
from videopool.models.lora import checkpoint_gradients, make_trainable, restore, training_mode
from videopool.models.tower_outputs import tower_outputs
from videopool.notes import note
from videopool.points.lifecycle import attempt
from videopool.results import PointFailed, PointFolder
from videopool.results.point import TRAINING_LOG, read_training_log
from videopool.runtime.interrupts import StopRequest, ask_before_stopping
from videopool.runtime.log import say
from videopool.runtime.progress import progress
from videopool.runtime.ranks import start_method
from videopool.tracking.training import TrainingCurves, training_curves
from videopool.training.batches import HELD_OUT, EncodedExample, Encoder, Loaders, Schedule
from videopool.training.checkpoints import OPTIMISER, WEIGHTS, Checkpoints, TrainingState, read_optimiser, read_weights
from videopool.training.export import BAD_BATCH, Exporter, start_over, training_metrics
from videopool.training.loop import StepCallback, TakeSteps, cut_log, fit
from videopool.training.module import Optimisation, Tuner
from videopool.training.point import TrainingPoint
from videopool.video import UniformSampler


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
                metrics = _train(point, folder.path, curves, take_steps)
                curves.finish(metrics)
            folder.write_metrics(metrics)
    held_out = metrics["validation_loss"]
    loss = f"{metrics['steps']} steps, loss {metrics['loss']:.3f}"
    return loss if held_out is None else f"{loss}, {held_out:.3f} on held-out ones"


def _train(point: TrainingPoint, folder: Path, curves: TrainingCurves, take_steps: TakeSteps) -> dict[str, Any]:
    """Take a run's remaining steps and export it. Returns its metrics."""
    config, started = point.config, time.perf_counter()
    tuner, exporter = _prepared(point, folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    encoder, steps, first = exporter.schedule.encoder, exporter.schedule.steps, tuner.loaders.first
    if first:
        say(f"        {folder.name}: continuing after step {first} of {steps}")
    with ask_before_stopping() as stop:
        if first < steps and strategy_of(config) == "auto":
            _take_steps(tuner, exporter, stop, curves, take_steps)
        elif first < steps:
            tuner.backbone.model.to("meta")  # the processes of the devices read the weights themselves
            _take_steps_on_devices(config, folder, stop, curves, first, steps)
        last = checkpoints.last()
        assert last is not None
        state, kept = last
        if state.step < steps:
            raise Stopped(f"{state.step} of {steps} steps of {folder.name} are done")
    if not state.tokens:
        reasons = [*state.failures.values(), *encoder.refused.values()]
        why = f"no example could be used, as {reasons[0]}" if reasons else "no example has a token to learn"
        raise PointFailed(f"{why}: nothing was learned")
    if config.job.export == "last":
        exporter.result(steps, read_weights(kept / WEIGHTS))
    elif best := checkpoints.best():
        exporter.result(best[0], read_weights(best[2]))
    else:
        raise PointFailed("job.export=best: no held-out example could be used, so there is no best step; say last")
    return training_metrics(exporter, state, first, time.perf_counter() - started)


def _prepared(point: TrainingPoint, folder: Path) -> tuple[Tuner, Exporter]:
    """The model as the last checkpoint left it, with its loaders; and what exports it."""
    config, settings = point.config, point.settings
    backbone = own_backbone(point.model)
    torch.manual_seed(point.seed)  # of LoRA's first weights
    make_trainable(backbone, settings["lora"])
    if settings["checkpoint_gradients"]:
        checkpoint_gradients(backbone)
    weights_of_base = probe(backbone)
    state, kept = Checkpoints(folder / "checkpoints").last() or (TrainingState(), None)
    encoder = Encoder(backbone, point.conversation_layout, point.limits())
    mixture, held = point.split
    steps = _steps(point, encoder)
    schedule = Schedule(mixture, encoder, steps, int(settings["global_batch"]), int(settings["micro_batch"]))
    held_out = [EncodedExample(example, encoded, HELD_OUT) for example in held if (encoded := encoder(example))]
    reader, processor = config.job.reader, image_processor_of(config, backbone)
    plans = {
        "video": read_plan(point.sampler, reader, processor, point.pooling, together=backbone.together),
        "image": read_plan(UniformSampler(1), reader, processor, point.poolings["image"], True, backbone.together),
    }
    as_evaluated = deepcopy(config)
    as_evaluated.trainer.precision = None  # features are made without the trainer's autocast
    outputs = {kind: tower_outputs(point.poolings[kind], backbone.shape, backbone.name) for kind in plans}
    sources = {kind: feature_source(as_evaluated, backbone, kind, own) for kind, own in outputs.items()}
    loaders = Loaders(schedule, state.step, held_out, plans, sources, point.store, int(config.job.workers))
    rate, warmup, floor, decay = (float(settings[name]) for name in ("rate", "warmup", "floor", "weight_decay"))
    betas = float(settings["betas"][0]), float(settings["betas"][1])
    optimisation = Optimisation(steps, rate, warmup, floor, betas, decay)
    tuner = Tuner(backbone, point, optimisation, state, loaders)
    training_mode(backbone)
    if kept is not None:
        restore(backbone, read_weights(kept / WEIGHTS))
        tuner.optimiser_state = read_optimiser(kept / OPTIMISER)
    return tuner, Exporter(point, folder, schedule, weights_of_base)


def _take_steps(
    tuner: Tuner, exporter: Exporter, stop: StopRequest, curves: TrainingCurves, take_steps: TakeSteps
) -> None:
    """Take the remaining steps on this process's device."""
    point, schedule, held_out = exporter.point, exporter.schedule, tuner.loaders.held_out
    settings, job = point.settings, point.config.job
    seen = min(schedule.mixture.length(1), schedule.steps * schedule.batch) + len(point.split[1])
    allowed = math.floor(float(job.max_failed_fraction) * seen)
    every = int(settings["validation"]["every"]) if held_out else 0
    callback = StepCallback(exporter, tuner.progress, every, allowed, stop, curves)
    take_steps(point.config, tuner, callback, schedule.micros, point.precision)
    for line in point.store.finish():
        note(line, every_rank=True)


def _take_steps_on_devices(
    config: DictConfig, folder: Path, stop: StopRequest, curves: TrainingCurves, first: int, steps: int
) -> None:
    """Take the remaining steps in a process per device; this one follows their log."""
    log = folder / TRAINING_LOG
    cut_log(log, first)
    curves.add(*read_training_log(folder))
    with progress("training", steps, first) as advance:

        def take(lines: Sequence[bytes]) -> None:
            for row in map(json.loads, lines):
                curves.add(row)
                if "ema" in row:
                    advance(1, f"loss {row['ema']:.3f}")

        with lines_watched(log, take):
            on_devices(partial(_serve, config, folder, stop), int(config.trainer.devices), start_method(config))


def _serve(config: DictConfig, folder: Path, stop: StopRequest, device: int) -> None:
    """Take part in the steps, in the process of a device."""
    _take_steps(*_prepared(TrainingPoint(config), folder), stop, TrainingCurves(None), fit)


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
