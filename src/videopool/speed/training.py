"""The part training of job=speed: fine-tuning from the feature store, the loop around its steps, and resuming."""

import contextlib
import inspect
import io
import json
import statistics
import time
from collections.abc import Generator
from typing import Any

import torch
from omegaconf import DictConfig
from torch.optim.optimizer import register_optimizer_step_post_hook

from videopool.features import FeatureStore
from videopool.models.lora import kept_weights, trainable
from videopool.points.lifecycle import folder_of
from videopool.points.point import Point
from videopool.results.point import TRAINING_LOG, read_training_log
from videopool.speed.bench import Bench, Line, Step
from videopool.speed.commands import SIGNALS, resumed
from videopool.speed.timing import clock, median_interval, turn
from videopool.training.loop import StepCallback, TakeSteps, fit
from videopool.training.module import Tuner
from videopool.training.point import TrainingPoint
from videopool.training.run import train_point

Steps = dict[str, list[float]]  # a number per step, by loop: `job` or `bare`
SAME_LOSS = 1e-4  # relative tolerance of the two loops' losses, which round a micro-batch's factor differently


def training(bench: Bench, line: Line) -> dict[str, Any]:
    """Part g: a sweep of poolings, the loop, resuming. Raises AssertionError if two ways do not learn alike."""
    settings = bench.config.job.training
    if bench.in_memory is not None:
        return {"skipped": "the weights are in no file that a training could load"}
    step = line("fine-tuning", len(settings.poolings) + int(settings.loop_rounds) + len(SIGNALS))
    train(bench.training("g-warm-up", settings.poolings[0], 1), FeatureStore())
    entry: dict[str, Any] = {"sweep": _sweep(bench, step), "loop": loop(bench, step), "resume": []}
    for way in SIGNALS:
        entry["resume"].append(resumed(bench, way))
        step()
    return entry


def _sweep(bench: Bench, step: Step) -> dict[str, Any]:
    """The same poolings trained from one store (`kept`), and each encoding its own frames (`alone`), in turn."""
    settings, stores = bench.config.job.training, {"kept": bench.store("training"), "alone": FeatureStore()}
    steps, rows = int(settings.steps), list[dict[str, Any]]()
    for number, pooling in enumerate(settings.poolings):
        point = Point(bench.point(f"g-{number}", pooling, settings.frames))
        rows.append({"pooling": point.pooling.label, "visual_tokens": point.visual_tokens})
        losses = {}
        for way in turn(list(stores), number):
            rows[-1][way], losses[way] = train(bench.training(f"g-{way}-{number}", pooling, steps), stores[way])
        if losses["kept"] != losses["alone"] and bench.size["dtype"] == "float32":
            raise AssertionError(f"losses of {pooling} from the store are not those without it")
        step()
    kept, alone = (sum(row[way] for row in rows) for way in stores)
    epochs = steps * int(settings.recipe.global_batch) / int(bench.size["clips"])
    totals = {"kept_seconds": kept, "alone_seconds": alone, "ratio": alone / kept}
    return {"rows": rows, "steps": steps, "epochs": epochs, **totals}


def loop(bench: Bench, step: Step) -> dict[str, Any]:
    """A step of the job's loop and of a bare loop, over the same batches with kept features, in turn.

    The machine's pace changes less between two steps than between two loops. The first step of a loop warms up and
    does not count, nor do checkpoints. `overhead` is the median of (step of the job's loop / step of the bare loop
    beside it - 1), from `overhead_low` to `overhead_high` its 95 % interval.
    """
    settings, seconds = bench.config.job.training, {"job": list[float](), "bare": list[float]()}
    pooling, steps, store = settings.poolings[0], int(settings.loop_steps), bench.store("loop")
    train(bench.training("g-fill", pooling, -(-bench.size["clips"] // int(settings.recipe.global_batch))), store)
    for number in range(int(settings.loop_rounds)):
        configs = [bench.training(f"g-{way}-{number}", pooling, steps, checkpoint_every=steps) for way in seconds]
        losses, spans = _side_by_side(configs[0], configs[1], store, bare_first=number % 2 == 1)
        for job, bare in zip(losses["job"], losses["bare"], strict=True):
            if abs(job - bare) > SAME_LOSS * abs(bare):
                raise AssertionError(f"the job's loop has a loss of {job}, a bare one {bare}")
        for way, own in seconds.items():
            own += spans[way][1:]
        step()
    ratios = [job / bare - 1 for job, bare in zip(seconds["job"], seconds["bare"], strict=True)]
    low, high = median_interval(ratios)
    return {
        "steps": steps, "rounds": int(settings.loop_rounds),
        "job_seconds": statistics.median(seconds["job"]), "bare_seconds": statistics.median(seconds["bare"]),
        "overhead": statistics.median(ratios), "overhead_low": low, "overhead_high": high,
    }  # fmt: skip


def _side_by_side(job: DictConfig, bare: DictConfig, store: FeatureStore, bare_first: bool) -> tuple[Steps, Steps]:
    """Losses, and seconds of each loop's steps without the other's: the bare loop takes a step after each of the job's.

    With `bare_first`, it is a step ahead.
    """
    losses, spans = Steps(), {"job": list[float](), "bare": list[float]()}

    def beside(*parts: Any) -> None:
        """Take the steps of the bare loop from within the job's."""
        steps, began = bare_loop(*parts), time.perf_counter()

        def advance() -> None:
            started = time.perf_counter()
            if next(steps, None) is not None:
                spans["bare"].append(time.perf_counter() - started)

        def stepped(*_: Any) -> None:
            nonlocal began
            if inspect.getgeneratorstate(steps) != inspect.GEN_RUNNING:  # not the bare loop itself
                spans["job"].append(time.perf_counter() - began)
                advance()
                began = time.perf_counter()

        if bare_first:
            advance()
        hook = register_optimizer_step_post_hook(stepped)
        try:
            losses["job"] = train(job, store)[1]
        finally:
            hook.remove()
        advance()  # past the last step, for its files

    losses["bare"] = train(bare, store, beside)[1]
    return losses, spans


def train(config: DictConfig, store: FeatureStore, take_steps: TakeSteps | None = None) -> tuple[float, list[float]]:
    """Train as job=finetune does, in a new folder: seconds from the configuration to the export, loss of each step."""
    seconds: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()), clock(seconds, "all"):
        point = TrainingPoint(config)
        point.store = store
        torch.manual_seed(point.seed)
        identity = point.identity()
        point.check()
        folder = folder_of(config, point.name, identity)
        train_point(point, folder, identity, lambda: None, take_steps or fit)
    return seconds["all"], [row["loss"] for row in read_training_log(folder.path) if "loss" in row]


def bare_loop(
    config: DictConfig, tuner: Tuner, keeper: StepCallback, micros: int, precision: str
) -> Generator[float, None, None]:
    """fit() on one device, without Lightning, validation, or writing between steps; yields the loss of each step."""
    optimiser, progress, rows = tuner.configure_optimizers(), keeper.progress, list[dict[str, Any]]()
    loss, tokens, started = 0.0, 0, time.perf_counter()
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
            group["lr"] = tuner.optimisation.at(progress.step)
        optimiser.step()
        optimiser.zero_grad()
        mean, spent = loss / max(1, tokens), time.perf_counter() - started
        progress.step += 1
        progress.tokens += tokens
        rows.append({"step": progress.step, "loss": mean, "ema": mean, "tokens": tokens, "seconds": spent})
        progress.ema, loss, tokens = mean, 0.0, 0
        yield mean
    (keeper.folder / TRAINING_LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    keeper.checkpoints.save(progress, kept_weights(tuner.backbone), optimiser.state_dict())
