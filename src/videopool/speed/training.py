"""The part training of job=speed: fine-tuning from the feature store, the loop around its steps, and resuming."""

import contextlib
import io
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch.optim.optimizer import register_optimizer_step_post_hook

from videopool.features import FeatureStore
from videopool.models.lora import kept_weights, trainable
from videopool.points.lifecycle import folder_of
from videopool.points.point import Point
from videopool.results import PointFolder
from videopool.results.point import TRAINING_LOG, read_training_log
from videopool.speed.bench import Bench, Line, Step
from videopool.speed.commands import SIGNALS, resumed
from videopool.speed.timing import Turns, in_turn, median_interval, timed, turn
from videopool.training.loop import StepCallback, TakeSteps, fit
from videopool.training.module import Tuner
from videopool.training.point import TrainingPoint
from videopool.training.run import train_point

KEPT, ALONE = "kept", "alone"  # the sweep from one store; each run encoding its own frames in every epoch
JOB, BARE = "job", "bare"  # the loops
SAME_LOSS = 1e-4  # relative tolerance of the two loops' losses, which round a micro-batch's factor differently


@dataclass
class Training:
    """A finished training."""

    seconds: float  # wall clock, from its configuration to its export
    losses: list[float]  # by step


def training(bench: Bench, line: Line) -> dict[str, Any]:
    """Part g: a sweep of poolings, the loop, resuming. Raises AssertionError if two ways do not learn alike."""
    settings = bench.config.job.training
    if bench.in_memory is not None:
        return {"skipped": "the weights are in no file that a training could load"}
    step = line("fine-tuning", len(settings.poolings) + int(settings.loop_rounds) + len(SIGNALS))
    _train(bench.training("g-warm-up", settings.poolings[0], 1), FeatureStore())
    entry: dict[str, Any] = {"sweep": _sweep(bench, step), "loop": loop(bench, step), "resume": []}
    for way in SIGNALS:
        entry["resume"].append(resumed(bench, way))
        step()
    return entry


def _sweep(bench: Bench, step: Step) -> dict[str, Any]:
    """The same poolings trained from one store and with nothing kept, in turn."""
    settings, store = bench.config.job.training, bench.store("training")
    steps, rows = int(settings.steps), list[dict[str, Any]]()
    for number, pooling in enumerate(settings.poolings):
        works = {
            way: partial(_train, bench.training(f"g-{way}-{number}", pooling, steps), own)
            for way, own in ((KEPT, store), (ALONE, FeatureStore()))
        }
        runs = in_turn(works, number)
        if runs[KEPT].losses != runs[ALONE].losses and bench.size["dtype"] == "float32":
            raise AssertionError(f"losses of {pooling} from the store are not those without it")
        point = Point(bench.point(f"g-{number}", pooling, settings.frames))
        seconds = {way: run.seconds for way, run in runs.items()}
        rows.append({"pooling": point.pooling.label, "visual_tokens": point.visual_tokens, **seconds})
        step()
    kept, alone = (sum(row[way] for row in rows) for way in (KEPT, ALONE))
    epochs = steps * int(settings.recipe.global_batch) / int(bench.size["clips"])
    totals = {"kept_seconds": kept, "alone_seconds": alone, "ratio": alone / kept}
    return {"rows": rows, "steps": steps, "epochs": epochs, **totals}


def loop(bench: Bench, step: Step) -> dict[str, Any]:
    """A step of the job's loop and of a bare loop, over the same batches with kept features, in turn.

    The machine's pace changes less between two steps than between two loops. The first step of a loop warms up and
    does not count, nor do checkpoints.

    Returns:
        `overhead`, the median of (step of the job's loop / next step of the bare loop - 1), its 95 % interval
        `overhead_low`, `overhead_high`, and the median seconds of both steps.
    """
    settings = bench.config.job.training
    pooling, steps, store = settings.poolings[0], int(settings.loop_steps), bench.store("loop")
    seconds: dict[str, list[float]] = {JOB: [], BARE: []}
    _train(bench.training("g-fill", pooling, -(-bench.size["clips"] // int(settings.recipe.global_batch))), store)
    for number in range(int(settings.loop_rounds)):
        configs = {way: bench.training(f"g-{way}-{number}", pooling, steps) for way in turn(seconds, number)}
        losses = {}
        for way, (run, spans) in _side_by_side(configs, store).items():
            losses[way] = run.losses
            seconds[way] += spans[1:]
        for job, bare in zip(losses[JOB], losses[BARE], strict=True):
            if abs(job - bare) > SAME_LOSS * abs(bare):
                raise AssertionError(f"the job's loop has a loss of {job}, a bare one {bare}")
        step()
    ratios = [job / bare - 1 for job, bare in zip(seconds[JOB], seconds[BARE], strict=True)]
    low, high = median_interval(ratios)
    return {
        "steps": steps, "rounds": int(settings.loop_rounds),
        "job_seconds": statistics.median(seconds[JOB]), "bare_seconds": statistics.median(seconds[BARE]),
        "overhead": statistics.median(ratios), "overhead_low": low, "overhead_high": high,
    }  # fmt: skip


def _side_by_side(configs: dict[str, DictConfig], store: FeatureStore) -> dict[str, tuple[Training, list[float]]]:
    """Train in the job's loop and in a bare loop, step by step in turn; the first of `configs` begins.

    Returns, by loop, its training and the seconds between the ends of its steps, without the other's.
    """
    turns, own = Turns(configs), threading.local()
    spans: dict[str, list[float]] = {way: [] for way in configs}
    loops = {JOB: fit, BARE: bare_loop}

    def stepped(*_: Any) -> None:
        spans[own.way].append(time.perf_counter() - own.began)
        turns.hand_over(own.way)
        own.began = time.perf_counter()

    def run(way: str) -> Training:
        configs[way].job.checkpoint_every = configs[way].training.steps
        with turns.taking(way):
            own.way, own.began = way, time.perf_counter()
            return _trained(configs[way], store, loops[way])

    hook = register_optimizer_step_post_hook(stepped)
    try:
        with contextlib.redirect_stdout(io.StringIO()), ThreadPoolExecutor(len(configs)) as pool:
            futures = {way: pool.submit(run, way) for way in configs}
            return {way: (future.result(), spans[way]) for way, future in futures.items()}
    finally:
        hook.remove()


def _train(config: DictConfig, store: FeatureStore) -> Training:
    """Train as job=finetune does; the folder must not hold the run yet."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _trained(config, store, fit)


def _trained(config: DictConfig, store: FeatureStore, take_steps: TakeSteps) -> Training:
    def run() -> PointFolder:
        point = TrainingPoint(config)
        point.store = store
        torch.manual_seed(point.seed)
        identity = point.identity()
        point.check()
        folder = folder_of(config, point.name, identity)
        train_point(point, folder, identity, lambda: None, take_steps)
        return folder

    seconds, folder = timed(run)
    return Training(seconds, [row["loss"] for row in read_training_log(folder.path) if "loss" in row])


def bare_loop(config: DictConfig, tuner: Tuner, keeper: StepCallback, micros: int, precision: str) -> None:
    """fit() on one device, without Lightning, validation, or writing between steps."""
    optimiser, rows = tuner.configure_optimizers(), list[dict[str, Any]]()
    loss, tokens, started = 0.0, 0.0, time.perf_counter()
    for number, batch in enumerate(tuner.loaders("train", 0, 1), start=1):
        with torch.autocast(tuner.backbone.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            total, count = tuner.losses(batch)
        (total / max(1, batch.step_tokens)).backward()
        loss, tokens = loss + float(total.detach()), tokens + count
        if number % micros:
            continue
        if config.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(trainable(tuner.backbone).values(), float(config.training.clip))
        for group in optimiser.param_groups:
            group["lr"] = tuner.optimisation.at(len(rows))
        optimiser.step()
        optimiser.zero_grad()
        mean, now = loss / max(1.0, tokens), time.perf_counter() - started
        rows.append({"step": len(rows) + 1, "loss": mean, "ema": mean, "tokens": int(tokens), "seconds": now})
        loss = tokens = 0.0
    keeper.progress.step, keeper.progress.ema = len(rows), rows[-1]["loss"]
    keeper.progress.tokens = sum(row["tokens"] for row in rows)
    (keeper.folder / TRAINING_LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    keeper.checkpoints.save(keeper.progress, kept_weights(tuner.backbone), optimiser.state_dict())
