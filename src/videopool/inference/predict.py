"""Lightning's predict loop over batches of clips, on one device or several; each batch's records are written at once.

The clips of a batch do not depend on the number of devices, so neither do the records.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.multiprocessing.spawn import ProcessException
from torch.utils.data import DataLoader, Dataset

from videopool.config.build import build
from videopool.config.errors import ConfigError
from videopool.features import ClipDataset, LoadedClip
from videopool.inference.device_failure import device_failure
from videopool.inference.reader import ClipReader
from videopool.results.point import read_json, write_json
from videopool.results.records import Times
from videopool.runtime.interrupts import StopRequest, ignore_interrupts
from videopool.runtime.progress import progress
from videopool.runtime.ranks import START_METHOD, own_environment, strategy_of

WATCH_SECONDS = 0.5
DEVICE_FILES = ".device-"  # prefix of files in which processes of several devices report their seconds and frames


class Batches(Dataset[list[LoadedClip]]):
    """Clips in groups of at most `size`, in order; empty groups after the user asked to stop."""

    def __init__(self, clips: ClipDataset, size: int, stop: StopRequest) -> None:
        self.clips, self.size, self.stop = clips, size, stop

    def __len__(self) -> int:
        return -(-len(self.clips) // self.size)

    def __getitem__(self, place: int) -> list[LoadedClip]:
        if self.stop.asked:
            return []
        first = place * self.size
        return [self.clips[i] for i in range(first, min(first + self.size, len(self.clips)))]


class Log(Protocol):
    """Takes a model's output for a batch."""

    path: Path  # a file in the point's folder; with several devices, its lines are the records

    def append(self, records: Any) -> None: ...


def predict(
    config: DictConfig,
    evaluator: ClipReader,
    clips: ClipDataset,
    log: Log,
    stop: StopRequest,
    batch: int,
    times: Times | None = None,
    title: str = "answering",
) -> None:
    """Run a model over clips, `batch` at a time, append its output to a log, and the seconds of each batch to times.

    Raises PointFailed or DeviceFailed if a process of several devices ended early.
    """
    batches, folder = Batches(clips, batch, stop), log.path.parent
    if not len(batches):
        return
    asked = int(config.trainer.devices)
    devices = min(asked, len(batches))
    workers = int(config.job.workers) if clips.must_read else 0
    loader = loader_of(batches, workers, batch_size=1, collate_fn=itemgetter(0))

    def run(writer: _Writer, **more: Any) -> None:
        trainer = trainer_of(config, writer, **more)
        with device_processes(trainer):
            trainer.predict(evaluator, dataloaders=loader, return_predictions=False)

    with progress(title, sum(len(clip.samples) for clip in clips.jobs)) as advance:
        if devices == 1:
            alone = {} if asked == 1 else {"devices": 1, "strategy": "auto"}
            run(_Writer(log, times, advance), **alone)
            return
        _take_reports(folder)  # those of a failed attempt
        with lines_watched(log.path, advance):
            run(_Writer(log, times), devices=devices, strategy=strategy_of(config))
    for report in _take_reports(folder):
        evaluator.frames.update(report["frames"])
        for kind, spent in report["seconds"].items():
            evaluator.seconds[kind] += spent


def loader_of(data: Dataset[Any], workers: int, **more: Any) -> DataLoader[Any]:
    """A loader whose processes, if any, leave signals to the main process; pixels are pinned for an accelerator."""
    more["pin_memory"] = torch.accelerator.is_available()
    if workers:
        more |= {"worker_init_fn": ignore_interrupts, "multiprocessing_context": START_METHOD}
    return DataLoader(data, num_workers=workers, **more)


def trainer_of(config: DictConfig, callback: Callback, **more: Any) -> pl.Trainer:
    """The configured Trainer, without files and bars of its own. With a named strategy, it may use a whole cluster."""
    more |= dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    if config.trainer.get("strategy", "auto") == "auto":
        more["plugins"] = [LightningEnvironment()]  # ignores a cluster's variables
    trainer: pl.Trainer = build(config, "trainer", callbacks=[callback], **more)
    return trainer


def check_trainer(config: DictConfig) -> None:
    """Raises ConfigError if this machine lacks the trainer's devices, strategy or precision. Starts nothing."""
    asked, precision = str(config.trainer.accelerator), config.trainer.get("precision")
    names = ("auto", "gpu", *AcceleratorRegistry.available_accelerators())
    if asked not in names:
        raise ConfigError(f"trainer.accelerator={asked}: choose one of {', '.join(names)}")
    strategy = {} if int(config.trainer.devices) == 1 else {"strategy": strategy_of(config)}
    if config.trainer.get("strategy") == "fsdp":  # training makes it itself, once the model is there
        strategy = {"strategy": "auto"}
    try:
        trainer = trainer_of(config, Callback(), **strategy)
    except ConfigError as error:
        advice = "" if asked in ("auto", "cpu") else "; trainer.accelerator=cpu needs no GPU, auto takes what is there"
        raise ConfigError(f"trainer.accelerator={asked}: {error}{advice}") from error
    if str(precision).startswith("16") and not str(trainer.precision).startswith("16"):
        raise ConfigError(f"trainer.precision={precision}: this device computes in {trainer.precision} instead; say so")


@contextmanager
def device_processes(trainer: pl.Trainer) -> Iterator[None]:
    """A block in which a Trainer runs; raises the error of a process that it started."""
    try:
        with own_environment():
            yield
    except ProcessException as error:
        raise device_failure(error, trainer.num_devices) from error


class _Writer(Callback):
    """Writes the records of each batch as soon as it is done."""

    def __init__(self, log: Log, times: Times | None, advance: Callable[[int], None] | None = None) -> None:
        self.output, self.times, self.advance = log, times, advance

    def on_predict_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.output.append(outputs)
        if self.times is not None and outputs:
            self.times.add(len(outputs), module.seconds)
        if self.advance is not None:
            self.advance(len(outputs))

    def on_predict_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.world_size > 1:
            path = self.output.path.with_name(f"{DEVICE_FILES}{trainer.global_rank}.json")
            write_json(path, {"seconds": module.seconds, "frames": module.frames})


def _take_reports(folder: Path) -> list[dict[str, Any]]:
    """Seconds and frames of each device's process by kind; the files are removed."""
    reports = []
    for path in folder.glob(f"{DEVICE_FILES}*.json"):
        reports.append(read_json(path) or {"seconds": {}, "frames": {}})
        path.unlink()
    return reports


@contextmanager
def lines_watched(path: Path, advance: Callable[[int], None], mark: bytes = b"\n") -> Iterator[None]:
    """Advance the progress bar by the lines, or marks in them, that other processes append to a file."""
    done = threading.Event()

    def watch() -> None:
        place = path.stat().st_size if path.exists() else 0
        while not done.wait(WATCH_SECONDS):
            if not path.exists():
                continue
            place = min(place, path.stat().st_size)  # a log that goes on is cut first
            with path.open("rb") as file:
                file.seek(place)
                fresh = file.read()
            place += len(fresh)
            advance(fresh.count(mark))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
