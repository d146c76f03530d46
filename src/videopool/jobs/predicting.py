"""Lightning's predict loop over batches of clips, on one device or several; records are written after each batch.

Which clips stand in a batch together does not depend on the number of devices, so neither do the records.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.multiprocessing.spawn import ProcessException
from torch.utils.data import DataLoader, Dataset

from videopool.features import ClipDataset, LoadedClip
from videopool.jobs.build import build, number
from videopool.jobs.clip_reader import ClipReader
from videopool.jobs.interrupts import StopRequest, ignore_interrupts
from videopool.results import PointFailed
from videopool.results.times import Times

# Named, because inside a joblib worker the default is loky's, which cannot start loader processes.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
WATCH_SECONDS = 0.5
TOLD = ".device-"  # begins the names of files in which the processes of several devices tell what they did


class Batches(Dataset[list[LoadedClip]]):
    """Clips in groups of at most `size`, in order; empty ones once the user asked to stop."""

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
    """Where what a model makes of a batch is appended.

    Attributes:
        path: a file in the point's folder; with several devices, records are lines of it.
    """

    path: Path

    def append(self, records: Any) -> None: ...


def predict(
    config: DictConfig,
    evaluator: ClipReader,
    clips: ClipDataset,
    log: Log,
    stop: StopRequest,
    batch: int,
    times: Times | None = None,
) -> None:
    """Run a model over some clips and append what it makes of them.

    Args:
        config: of the point; `job` and `trainer` are used.
        batch: clips read at once.
        times: where each batch's are written, if anywhere.

    Raises:
        PointFailed: a process of several devices ended before its time.
    """
    devices = number(config, "trainer.devices", 1, whole=True)
    workers = int(config.job.workers) if clips.must_read else 0
    loader: DataLoader[Any] = DataLoader(
        Batches(clips, batch, stop),
        batch_size=1,
        collate_fn=_only,
        num_workers=workers,
        worker_init_fn=ignore_interrupts if workers else None,
        multiprocessing_context=START_METHOD if workers else None,
    )
    total = sum(len(clip.samples) for clip in clips.jobs)
    with progress_bar(log.path.parent.name, total) as advance:
        if devices == 1:
            _run(config, evaluator, loader, _Writer(log, advance, times))
            return
        with _watched(log.path, advance):
            _run(config, evaluator, loader, _Writer(log, _ignore, times), strategy=strategy_of(config))
    _collect(log.path.parent, evaluator)


def _run(config: DictConfig, evaluator: ClipReader, loader: DataLoader[Any], writer: "_Writer", **more: Any) -> None:
    trainer: pl.Trainer = build(
        config,
        "trainer",
        callbacks=[writer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    try:
        trainer.predict(evaluator, dataloaders=loader, return_predictions=False)
    except ProcessException as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise PointFailed(f"a process of trainer.devices={config.trainer.devices} ended: {lines[-1]}") from error


def strategy_of(config: DictConfig) -> str:
    """How several devices are started, where the configuration leaves it open.

    A fork inherits the weights; CUDA does not survive a fork, so there weights go through shared memory.
    """
    chosen = str(config.trainer.get("strategy", "auto"))
    if chosen != "auto":
        return chosen
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return "ddp_fork" if on_cpu and START_METHOD == "fork" else "ddp_spawn"


def _only(items: Sequence[list[LoadedClip]]) -> list[LoadedClip]:
    (item,) = items
    return item


def _ignore(_: int) -> None:
    pass


class _Writer(Callback):
    """Writes the records of each batch as soon as it is done."""

    def __init__(self, log: Log, advance: Callable[[int], None], times: Times | None) -> None:
        self.records, self.advance, self.times = log, advance, times

    def on_predict_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.records.append(outputs)
        if self.times is not None and outputs:
            assert isinstance(module, ClipReader)
            self.times.add(len(outputs), module.seconds)
        self.advance(len(outputs))

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            assert isinstance(module, ClipReader)
            path = self.records.path.parent / f"{TOLD}{trainer.global_rank}.json"
            path.write_text(json.dumps({"seconds": module.seconds, "frames": module.frames}))


def _collect(folder: Path, evaluator: ClipReader) -> None:
    """Add up what each device's process spent and read, by kind."""
    for path in folder.glob(f"{TOLD}*.json"):
        told = json.loads(path.read_text())
        for kind, spent in told["seconds"].items():
            evaluator.seconds[kind] += spent
        for kind, count in told["frames"].items():
            evaluator.frames[kind] += count
        path.unlink()


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate and time left; gives the function that moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), transient=True, disable=not sys.stdout.isatty()
    ) as bar:
        line = bar.add_task(title, total=total)
        yield lambda count: bar.advance(line, count)


@contextmanager
def _watched(path: Path, advance: Callable[[int], None]) -> Iterator[None]:
    """Move the bar on by what other processes append to a file."""
    done = threading.Event()

    def watch() -> None:
        place = path.stat().st_size
        while not done.wait(WATCH_SECONDS):
            with path.open("rb") as file:
                file.seek(place)
                fresh = file.read()
            place += len(fresh)
            advance(fresh.count(b"\n"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
