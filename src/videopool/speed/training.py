"""The part training of job=speed: fine-tuning from the feature store, the loop around its steps, and resuming."""

import contextlib
import inspect
import io
import json
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch.optim.optimizer import register_optimizer_step_post_hook

from videopool.features import FeatureStore
from videopool.models.lora import kept_weights, trainable
from videopool.points.lifecycle import folder_of
from videopool.points.point import Point
from videopool.results.manifest import peak_memory
from videopool.results.point import TRAINING_LOG, read_training_log
from videopool.speed.bench import Bench, Line, Step
from videopool.speed.commands import SIGNALS, resumed
from videopool.speed.timing import clock, median_interval, medians, turn
from videopool.training.loop import StepCallback, TakeSteps, fit
from videopool.training.module import Tuner
from videopool.training.point import TrainingPoint
from videopool.training.run import train_point

Steps = dict[str, list[float]]  # a number per step, by loop: `job` or `bare`
SAME_LOSS = 1e-4  # relative tolerance of the two loops' losses, which round a micro-batch's factor differently


def training(bench: Bench, line: Line) -> dict[str, Any]:
    """Part g: a sweep of poolings, the loop, resuming. Raises AssertionError if two ways do not learn alike."""
    settings = bench.config.job.training
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
            config = bench.training(f"g-{way}-{number}", pooling, steps)
            rows[-1][way], log = train(config, stores[way])
            losses[way] = _losses(log)
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
            losses["job"] = _losses(train(job, store)[1])
        finally:
            hook.remove()
        advance()  # past the last step, for its files

    losses["bare"] = _losses(train(bare, store, beside)[1])
    return losses, spans


def steps_alone(bench: Bench, line: Line) -> dict[str, Any]:
    """Part l: steps with LoRA: tokens per second of the language model, and MFU, the operations per second over those
    of a product of square matrices; the same losses with FSDP over this one device. The first step warms up.
    """
    settings, counted = bench.config.job.training, dict[str, float]()
    count, step = int(settings.lone_steps), line("steps with LoRA", 2)
    bench.forget()

    def take(config: DictConfig, tuner: Tuner, keeper: StepCallback, micros: int, precision: str) -> None:
        point, schedule = keeper.exporter.point, keeper.exporter.schedule
        kinds = [(one.example.kind, len(one.encoded.input_ids)) for one in schedule.examples(0, count * schedule.batch)]
        counted["tokens"] = sum(point.tokens_of(kind) + text - 1 for kind, text in kinds)
        counted["flops"] = sum(point.flops_of(kind, text) for kind, text in kinds)
        fit(config, tuner, keeper, micros, precision)

    config = bench.training("l", settings.poolings[0], count)
    store = bench.store("steps")
    rows = train(config, store, take)[1]
    step()
    seconds = sum(row["step_seconds"] for row in rows[1:]) * count / (count - 1)
    dtype = torch.float32 if bench.size["dtype"] == "float32" and bench.device == "cpu" else torch.bfloat16
    square = torch.randn(2 * [int(bench.size["rates"]["side"])], device=bench.device, dtype=dtype)
    rate = 2 * len(square) ** 3 / medians({"square": lambda: square @ square}, 3)["square"]
    entry: dict[str, Any] = {
        "steps": count, "visual_tokens": Point(bench.point("l", settings.poolings[0], settings.frames)).visual_tokens,
        "step_seconds": seconds / count, "tokens_per_second": counted["tokens"] / seconds,
        "tflops": counted["flops"] / seconds / 1e12, "mfu": counted["flops"] / seconds / rate, **peak_memory(),
    }  # fmt: skip
    if bench.device == "cpu":
        return entry | {"fsdp": {"skipped": "Lightning shards on GPUs alone"}}
    sharded = bench.training("l-fsdp", settings.poolings[0], count)
    sharded.trainer.strategy = "fsdp"
    losses, others = _losses(rows), _losses(train(sharded, store)[1])
    step()
    differences = [abs(one - other) / abs(one) for one, other in zip(losses, others, strict=True)]
    return entry | {"fsdp": {"steps": count, "largest_difference": max(differences)}}


def _losses(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [row["loss"] for row in rows]


def train(
    config: DictConfig, store: FeatureStore, take_steps: TakeSteps | None = None
) -> tuple[float, list[dict[str, Any]]]:
    """Train as job=finetune does, in a new folder: seconds from the configuration to the export, each step's log."""
    seconds: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()), clock(seconds, "all"):
        point = TrainingPoint(config)
        point.store = store
        torch.manual_seed(point.seed)
        identity = point.identity()
        point.check()
        folder = folder_of(config, point.name, identity)
        train_point(point, folder, identity, lambda: None, take_steps or fit)
    return seconds["all"], [row for row in read_training_log(folder.path) if "loss" in row]


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
