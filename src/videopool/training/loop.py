"""Lightning's fit loop over a run's remaining steps: a log line per step, checkpoints, validation, a progress bar."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from videopool.files import append, json_lines, write_text
from videopool.inference.predict import strategy_of, trainer_of
from videopool.models.lora import kept_weights, trainable
from videopool.reading.module import VideoLM
from videopool.results import PointFailed
from videopool.results.point import TRAINING_LOG, read_training_log, write_json
from videopool.runtime.interrupts import StopRequest
from videopool.runtime.log import indented
from videopool.runtime.progress import Advance, progress
from videopool.tracking.training import TrainingCurves
from videopool.training.checkpoints import Checkpoints, TrainingState
from videopool.training.export import BAD_BATCH, Exporter
from videopool.training.module import NotFinite, Tuner, gathered


class StepCallback(Callback):
    """After each step: a log line, a checkpoint or an export where one is due, and a stop if the user asks for it."""

    def __init__(
        self,
        exporter: Exporter,  # of the run
        progress: TrainingState,  # of the Tuner
        validate_every: int,  # steps, counted back from the last one; 0: never
        allowed: int,  # number of examples with an unreadable clip or an unusable text
        stop: StopRequest,
        curves: TrainingCurves,  # get each line of the log
    ) -> None:
        self.exporter, self.folder, job = exporter, exporter.folder, exporter.point.config.job
        self.steps, self.refused = exporter.schedule.steps, exporter.schedule.encoder.refused
        self.progress, self.validate_every, self.allowed = progress, validate_every, allowed
        self.checkpoint_every, self.export_every = int(job.checkpoint_every), int(job.export_every)
        self.stop, self.curves = stop, curves
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.advance: Advance | None = None  # of the bar, where this process shows one
        self._before = dict(progress.seconds), dict(progress.frames)

    def validates(self, step: int) -> bool:
        """Whether a validation follows a step."""
        return self.validate_every > 0 and (self.steps - step) % self.validate_every == 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.stop.take_back()
        self._started = self._ready = time.perf_counter()
        if trainer.is_global_zero:
            cut_log(self.folder / TRAINING_LOG, self.progress.step)
            self.curves.add(*read_training_log(self.folder))

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, Tuner)
        report, module.report = module.report, None
        if report is None:
            return  # within a step
        self._refuse_failures(trainer, module)
        step = self.progress.step
        if trainer.is_global_zero:
            now = time.perf_counter()
            seconds = {"seconds": round(now - self._started, 3), "step_seconds": round(now - self._ready, 4)}
            self._log(step=step, **report, **seconds)
            if self.advance is not None:
                self.advance(1, f"loss {report['ema']:.3f}")
        if self.export_every and step % self.export_every == 0 and step < self.steps:
            weights = kept_weights(module.backbone)
            if trainer.is_global_zero:
                self.exporter.on_the_way(step, weights)
        module.stopping = bool(trainer.strategy.broadcast(self.stop.asked))  # all devices stop after the same step
        if not self.validates(step):
            self._save(trainer, module)
        self._ready = time.perf_counter()  # a step's seconds exclude what is written between steps

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Tuner)
        self._refuse_failures(trainer, module)
        if (loss := module.validation_loss) is not None:
            weights = kept_weights(module.backbone)
            if trainer.is_global_zero:
                norms = {f"visual_norm_{name}": norm for name, norm in (module.visual_norms or {}).items()}
                self._log(step=self.progress.step, validation_loss=loss, **norms)
                self.checkpoints.save_best(self.progress.step, loss, weights)
        self._save(trainer, module)
        self._ready = time.perf_counter()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NotFinite):
            _, where, step = exception.args
            write_json(self.folder / BAD_BATCH, {"step": step, "entries": where})

    def _refuse_failures(self, trainer: pl.Trainer, module: Tuner) -> None:
        """Raises PointFailed on all devices if more entries are unusable than allowed, over all devices."""
        # Several devices may know the same entry, so the entries themselves are gathered where the sum is too large.
        if sum(module.summed([len(self.progress.failures), len(self.refused)])) <= self.allowed:
            return
        unread: dict[str, str] = {}
        useless: dict[str, str] = {}
        for failures, refused in gathered(trainer, (self.progress.failures, dict(self.refused))):
            unread |= failures
            useless |= refused
        if len(unread) + len(useless) > self.allowed:
            counts = f"{len(unread)} clips could not be read"
            counts += f" and {len(useless)} conversations are of no use" if useless else ""
            lines = indented([*unread.values(), *useless.values()])
            raise PointFailed(f"{counts} (allowed by job.max_failed_fraction: {self.allowed}):{lines}")

    def _save(self, trainer: pl.Trainer, module: Tuner) -> None:
        step = self.progress.step
        if not module.stopping and step < self.steps and step % self.checkpoint_every:
            return
        weights = kept_weights(module.backbone)
        (optimiser,) = trainer.optimizers
        state = optimiser.state_dict()  # complete on each device, as trained parameters are never sharded
        parts = gathered(trainer, (module.seconds, module.frames, self.progress.failures))
        if not trainer.is_global_zero:
            return
        seconds, frames = Counter(self._before[0]), Counter(self._before[1])
        for own_seconds, own_frames, failures in parts:
            seconds.update(own_seconds)
            frames.update(own_frames)
            self.progress.failures |= failures
        self.progress.seconds, self.progress.frames = dict(seconds), dict(frames)
        self.checkpoints.save(self.progress, weights, state)

    def _log(self, **row: object) -> None:
        append(self.folder / TRAINING_LOG, json_lines([row]))
        self.curves.add(row)


def cut_log(path: Path, step: int) -> None:
    """Drop lines after a step, and an incomplete last line."""
    if path.exists():
        kept = [row for row in read_training_log(path.parent) if row["step"] <= step]
        write_text(path, json_lines(kept))


def fit(config: DictConfig, tuner: Tuner, keeper: StepCallback, micros: int, precision: str) -> None:
    """Take the remaining steps, of `micros` micro-batches over all devices, on the one of this process.

    Raises PointFailed if the loss is not finite or too many clips are unreadable.
    """
    strategy: Any = strategy_of(config)
    share = micros // int(config.trainer.devices)
    every = keeper.validate_every * share
    trainer = trainer_of(
        config, keeper, strategy=sharded(tuner) if strategy == "fsdp" else strategy, precision=precision, max_epochs=1,
        accumulate_grad_batches=share, gradient_clip_val=config.training.clip, val_check_interval=every or 1,
        limit_val_batches=1.0 if every else 0, check_val_every_n_epoch=None, num_sanity_val_steps=0,
        use_distributed_sampler=False,  # requests are dealt out by rank
    )  # fmt: skip
    if every:
        # Lightning counts micro-batches; a continued run validates after the same steps as an uninterrupted one.
        done = keeper.progress.step - keeper.steps
        trainer.fit_loop.epoch_loop.batch_progress.total.ready = done * share % every
    with progress("training", keeper.steps, keeper.progress.step) as advance:
        keeper.advance = advance
        trainer.fit(tuner)


TakeSteps = Callable[[DictConfig, Tuner, StepCallback, int, str], None]  # the signature of fit()


def sharded(tuner: VideoLM) -> Any:
    """FSDP over the frozen weights of the language model, layer by layer; the tower computes as in evaluation.

    Trained parameters stay whole, in float32 beside frozen weights in bfloat16; the Tuner averages their gradients.
    """
    from pytorch_lightning.strategies import FSDPStrategy
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    backbone = tuner.backbone
    layers = {type(layer) for layer in backbone.language_model.layers}
    towers = [parameter for kind in ("video", "image") for parameter in backbone.tower(kind).parameters()]
    unsharded = {id(parameter): parameter for parameter in [*towers, *trainable(backbone).values()]}
    return FSDPStrategy(auto_wrap_policy=ModuleWrapPolicy(layers), ignored_states=list(unsharded.values()))
