"""Lightning's fit loop over the steps that a run lacks; a log line a step, checkpoints, validation, a bar."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException

from videopool.config.build import build
from videopool.files import whole
from videopool.inference.device_failure import device_failure
from videopool.inference.predict import surroundings
from videopool.models.lora import kept_weights
from videopool.results import PointFailed
from videopool.results.point import TRAINING_LOG, read_training_log, write_json
from videopool.runtime.interrupts import StopRequest, end_loaders_at_exit
from videopool.runtime.ranks import own_environment
from videopool.tracking.training import TrainingCurves
from videopool.training.checkpoints import Checkpoints, Progress
from videopool.training.devices import training_strategy
from videopool.training.module import NotFinite, Tuner, gathered

BAD_BATCH = "bad_batch.json"
LISTED = 10


class Keeper(Callback):
    """After each step: a line in the log, a checkpoint where one is due, the end where the user asks for it.

    Args:
        folder: of the run.
        progress: what was done before.
        steps: of the whole run.
        checkpoint_every, validate_every: steps; validations are counted back from the last step. 0: never.
        stop: the user's wish to stop.
        allowed: examples whose clip may be unreadable or whose text may be of no use.
        refused: grows with the examples whose text is of no use: why, by example.
        export_every: steps; not behind the last one. 0: never.
        export: writes the weights behind a step where they can be evaluated.
        curves: get each line of the log.
    """

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        steps: int,
        checkpoint_every: int,
        validate_every: int,
        stop: StopRequest,
        allowed: int,
        refused: Mapping[str, str],
        export_every: int,
        export: Callable[[int, dict[str, Tensor]], None],
        curves: TrainingCurves,
    ) -> None:
        self.folder, self.progress, self.steps = folder, progress, steps
        self.export_every, self.export = export_every, export
        self.curves = curves
        self.checkpoint_every, self.validate_every = checkpoint_every, validate_every
        self.stop, self.allowed, self.refused = stop, allowed, refused
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self._before = dict(progress.seconds), dict(progress.frames)
        self._bar: Bar | None = None

    def validates(self, step: int) -> bool:
        """Whether the held-out examples are looked at behind a step."""
        return self.validate_every > 0 and (self.steps - step) % self.validate_every == 0

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            end_loaders_at_exit()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.stop.take_back()
        self._started = self._ready = time.perf_counter()
        if trainer.is_global_zero:
            cut_log(self.folder / TRAINING_LOG, self.progress.step)
            self.curves.add(*read_training_log(self.folder))
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}"))
            self._bar = Bar(*columns, *times, transient=True, disable=not sys.stdout.isatty())
            self._line = self._bar.add_task(self.folder.name, total=self.steps, completed=self.progress.step, now="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, Tuner)
        if module.step == self.progress.step:
            return  # within a step
        self._refuse_failures(trainer, module)
        self.progress.step = module.step
        self.progress.ema = module.ema
        report = module.report
        assert report is not None
        self.progress.tokens += report.tokens
        if trainer.is_global_zero:
            now = time.perf_counter()
            self._log(
                step=module.step, loss=report.loss, ema=module.ema, rate=report.rate, tokens=report.tokens,
                seconds=round(now - self._started, 3), step_seconds=round(now - self._ready, 4),
            )  # fmt: skip
            assert self._bar is not None
            self._bar.update(self._line, completed=module.step, now=f"loss {module.ema:.3f}")
        if self.export_every and module.step % self.export_every == 0 and module.step < self.steps:
            weights = kept_weights(module.backbone)
            if trainer.is_global_zero:
                self.export(module.step, weights)
        asked = bool(trainer.strategy.broadcast(self.stop.asked))  # all devices stop behind the same step
        if not self.validates(module.step):
            self._save(trainer, module, asked)
        module.stopping = asked
        self._ready = time.perf_counter()  # a step's seconds are without what is written between steps

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Tuner)
        self._refuse_failures(trainer, module)
        loss = module.validation_loss
        if loss is not None:
            weights = kept_weights(module.backbone)
            if trainer.is_global_zero:
                norms = {f"visual_norm_{name}": one for name, one in (module.visual_norms or {}).items()}
                self._log(step=module.step, validation_loss=loss, **norms)
                self.checkpoints.save_best(module.step, loss, weights)
        self._save(trainer, module, module.stopping)
        self._ready = time.perf_counter()

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NotFinite):
            write_json(self.folder / BAD_BATCH, {"step": exception.step, "entries": exception.where})
        self.on_fit_end(trainer, module)

    def _refuse_failures(self, trainer: pl.Trainer, module: Tuner) -> None:
        """Raises PointFailed on all devices if the entries that they cannot use are together more than are allowed.

        An entry may be known to several of them; only where their sum is too much is it asked which these are.
        """
        if sum(module.summed([len(module.failures), len(self.refused)])) <= self.allowed:
            return
        unread: dict[str, str] = {}
        useless: dict[str, str] = {}
        for failures, refused in gathered(trainer, (module.failures, dict(self.refused))):
            unread |= failures
            useless |= refused
        if len(unread) + len(useless) > self.allowed:
            told = f"{len(unread)} clips could not be read"
            told += f" and {len(useless)} conversations are of no use" if useless else ""
            listed = "".join(f"\n    {line}" for line in [*unread.values(), *useless.values()][:LISTED])
            raise PointFailed(f"{told} (allowed by job.max_failed_fraction: {self.allowed}):{listed}")

    def _save(self, trainer: pl.Trainer, module: Tuner, now: bool) -> None:
        step = module.step
        if not now and step < self.steps and step % self.checkpoint_every:
            return
        weights = kept_weights(module.backbone)
        (optimiser,) = trainer.optimizers
        state = optimiser.state_dict()  # whole on each device, as what is trained is
        counts = gathered(trainer, {"seconds": module.seconds, "frames": module.frames, "failures": module.failures})
        if not trainer.is_global_zero:
            return
        seconds, frames = Counter(self._before[0]), Counter(self._before[1])
        for told in counts:
            seconds.update(told["seconds"])
            frames.update(told["frames"])
            self.progress.failures |= told["failures"]
        self.progress.seconds, self.progress.frames = dict(seconds), dict(frames)
        self.checkpoints.save(self.progress, weights, state)

    def _log(self, **row: object) -> None:
        with (self.folder / TRAINING_LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.curves.add(row)


def cut_log(path: Path, step: int) -> None:
    """Drop the lines of steps behind one, and a line that was cut off."""
    if path.exists():
        kept = [row for row in read_training_log(path.parent) if row["step"] <= step]
        with whole(path) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def fit(config: DictConfig, tuner: Tuner, keeper: Keeper, micros: int, precision: str) -> None:
    """Take the steps that are left.

    Args:
        config: of the run; `trainer` and `training.clip` are used.
        micros: micro-batches of a step, over all devices.

    Raises:
        PointFailed: the loss is no finite number, too many clips cannot be read, or a process ended before its time.
    """
    devices = int(config.trainer.devices)
    share = micros // devices
    every = keeper.validate_every * share
    trainer: pl.Trainer = build(
        config,
        "trainer",
        callbacks=[keeper],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # requests are dealt out by rank
        max_epochs=1,
        accumulate_grad_batches=share,
        gradient_clip_val=config.training.clip,
        val_check_interval=every or 1,
        limit_val_batches=1.0 if every else 0,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        precision=precision,
        default_root_dir=str(keeper.folder),
        strategy=training_strategy(config, tuner),
        **surroundings(config),
    )
    if every:
        # Lightning counts micro-batches; a run that goes on validates behind the steps at which it would have.
        trainer.fit_loop.epoch_loop.batch_progress.total.ready = (tuner.step - keeper.steps) * share % every
    try:
        with own_environment():
            trainer.fit(tuner)
    except ProcessException as error:
        raise device_failure(error, devices) from error


TakeSteps = Callable[[DictConfig, Tuner, Keeper, int, str], None]  # takes what fit() takes
