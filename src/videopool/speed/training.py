"""The part training of job=speed: fine-tuning from the feature store, the loop around its steps, and resuming."""

import contextlib
import io
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from videopool.speed.timing import Turns, median_interval, timed, turn
from videopool.training.loop import StepCallback, TakeSteps, fit
from videopool.training.module import Tuner
from videopool.training.point import TrainingPoint
from videopool.training.run import train_point

KEPT, ALONE = "kept", "alone"  # ways of the sweep: from one store; each run encodes its own frames, in every epoch
JOB, BARE = "job", "bare"  # ways of the loop
SAME_LOSS = 1e-4  # of the two loops, relative: they round the factor of a micro-batch at different places


@dataclass
class Training:
    """One training, run.

    Attributes:
        seconds: wall clock, from its configuration to its export.
        losses: step by step.
    """

    seconds: float
    losses: list[float]


def training(made: Bench, line: Line) -> dict[str, Any]:
    """Fine-tuning: a sweep of poolings, the loop, resuming. Raises AssertionError if two ways do not learn alike."""
    settings = made.config.job.training
    if made.made is not None:
        return {"skipped": "the weights are in no file that a training could load"}
    step = line("fine-tuning", len(settings.poolings) + int(settings.loop_rounds) + len(SIGNALS))
    train(made.training("g-warm-up", settings.poolings[0], 1), FeatureStore())
    found = {"sweep": sweep(made, step), "loop": loop(made, step)}
    rows = []
    for way in SIGNALS:
        rows.append(resumed(made, way))
        step()
    return {**found, "resume": rows}


def sweep(made: Bench, step: Step) -> dict[str, Any]:
    """The same poolings trained under from one store, and with nothing kept, in turn."""
    settings, store = made.config.job.training, made.store("training")
    rows: list[dict[str, Any]] = []
    for number, pooling in enumerate(settings.poolings):
        runs: dict[str, Training] = {}
        for way in turn([KEPT, ALONE], number):
            config = made.training(f"g-{way}-{number}", pooling, int(settings.steps))
            runs[way] = train(config, store if way == KEPT else FeatureStore())
        if runs[KEPT].losses != runs[ALONE].losses and made.size["dtype"] == "float32":
            raise AssertionError(f"losses of {pooling} from the store are not those without it")
        point = Point(made.point(f"g-{number}", pooling, int(settings.frames), made.size["questions"]))
        told = {"pooling": point.pooling.label, "visual_tokens": point.visual_tokens}
        rows.append({**told, **{way: run.seconds for way, run in runs.items()}})
        step()
    totals = {way: sum(row[way] for row in rows) for way in (KEPT, ALONE)}
    shown = int(settings.steps) * int(settings.recipe.global_batch)
    return {
        "rows": rows,
        "steps": int(settings.steps),
        "epochs": shown / int(made.size["clips"]),
        "kept_seconds": totals[KEPT],
        "alone_seconds": totals[ALONE],
        "ratio": totals[ALONE] / totals[KEPT],
    }


def loop(made: Bench, step: Step) -> dict[str, Any]:
    """A step of the job's loop and of a bare one, over the same batches, features kept, step by step in turn.

    The pace of a machine changes more between two loops than they differ, and less between two steps. The first step
    of a loop, which warms up, is left out; so are checkpoints, which are written between steps.

    Returns:
        `overhead`, the median of how much longer a step of the job's loop is than the one beside it, with the interval
        (95 %) `overhead_low`, `overhead_high`, and medians of both steps' seconds.
    """
    settings = made.config.job.training
    pooling, steps, store = settings.poolings[0], int(settings.loop_steps), made.store("loop")
    seconds: dict[str, list[float]] = {JOB: [], BARE: []}
    train(made.training("g-fill", pooling, -(-made.size["clips"] // int(settings.recipe.global_batch))), store)
    for number in range(int(settings.loop_rounds)):
        configs = {}
        for way in turn([JOB, BARE], number):
            configs[way] = made.training(f"g-{way}-{number}", pooling, steps)
            configs[way].job.checkpoint_every = steps
        runs = _side_by_side(configs, store)
        for one, other in zip(runs[JOB][0].losses, runs[BARE][0].losses, strict=True):
            if abs(one - other) > SAME_LOSS * abs(other):
                raise AssertionError(f"the job's loop has a loss of {one}, a bare one {other}")
        for way, (_, spans) in runs.items():
            seconds[way] += spans[1:]
        step()
    ratios = [job / bare - 1 for job, bare in zip(seconds[JOB], seconds[BARE], strict=True)]
    low, high = median_interval(ratios)
    return {
        "steps": steps,
        "rounds": int(settings.loop_rounds),
        "job_seconds": statistics.median(seconds[JOB]),
        "bare_seconds": statistics.median(seconds[BARE]),
        "overhead": statistics.median(ratios),
        "overhead_low": low,
        "overhead_high": high,
    }


def _side_by_side(configs: dict[str, DictConfig], store: FeatureStore) -> dict[str, tuple[Training, list[float]]]:
    """Train in the job's loop and in a bare one, a step of the one and a step of the other.

    Args:
        configs: of the runs, by way; the first one begins.

    Returns:
        Of each, its losses, and the seconds from the end of each step to the end of the next, without the other's.
    """
    turns, own = Turns(configs), threading.local()
    spans: dict[str, list[float]] = {way: [] for way in configs}
    loops = {JOB: fit, BARE: bare_loop}

    def stepped(*_: Any) -> None:
        spans[own.way].append(time.perf_counter() - own.began)
        turns.hand_over(own.way)
        own.began = time.perf_counter()

    def run(way: str) -> Training:
        with turns.taking(way):
            own.way, own.began = way, time.perf_counter()
            return _trained(configs[way], store, loops[way])

    hook = register_optimizer_step_post_hook(stepped)
    try:
        with contextlib.redirect_stdout(io.StringIO()), ThreadPoolExecutor(len(configs)) as pool:
            found = {way: pool.submit(run, way) for way in configs}
            return {way: (one.result(), spans[way]) for way, one in found.items()}
    finally:
        hook.remove()


def train(config: DictConfig, store: FeatureStore) -> Training:
    """Train as job=finetune does.

    Args:
        config: of the run; its folder must not hold it yet.
        store: of features.
    """
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
    """What fit() does, without Lightning, validation or anything written between steps; on one device."""
    parameters = list(trainable(tuner.backbone).values())
    optimiser = tuner.configure_optimizers()
    rows: list[dict[str, Any]] = []
    loss = tokens = 0.0
    started = time.perf_counter()
    for number, batch in enumerate(tuner.loaders("train", 0, 1), start=1):
        with torch.autocast(tuner.backbone.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            total, count = tuner.losses(batch)
        (total / max(1, batch.step_tokens)).backward()
        loss, tokens = loss + float(total.detach()), tokens + count
        if number % micros:
            continue
        if config.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, float(config.training.clip))
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
