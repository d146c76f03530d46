"""Lightning's predict loop over batches of clips, on one device or several; records are written after each batch.

Which clips stand in a batch together does not depend on the number of devices, so neither do the records.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.multiprocessing.spawn import ProcessException
from torch.utils.data import DataLoader, Dataset

from videopool.config.build import build, number
from videopool.features import ClipDataset, LoadedClip
from videopool.inference.device_failure import device_failure
from videopool.inference.reader import ClipReader
from videopool.results.point import read_json, write_json
from videopool.results.times import Times
from videopool.runtime.interrupts import StopRequest, end_loaders_at_exit, ignore_interrupts
from videopool.runtime.ranks import START_METHOD, own_environment, strategy_of
from videopool.runtime.terminal import progress_bar

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
        batch: clips read at once. With fewer batches than devices, as behind a point that was stopped near its end,
            some devices are left out.
        times: where each batch's are written, if anywhere.

    Raises:
        PointFailed, DeviceFailed: a process of several devices ended before its time.
    """
    batches = Batches(clips, batch, stop)
    if not len(batches):
        return
    asked = number(config, "trainer.devices", 1, whole=True)
    devices = min(asked, len(batches))  # each has at least one to read
    workers = int(config.job.workers) if clips.must_read else 0
    loader: DataLoader[Any] = DataLoader(
        batches,
        batch_size=1,
        collate_fn=_only,
        num_workers=workers,
        worker_init_fn=ignore_interrupts if workers else None,
        multiprocessing_context=START_METHOD if workers else None,
    )
    total = sum(len(clip.samples) for clip in clips.jobs)
    with progress_bar(log.path.parent.name, total) as advance:
        if devices == 1:
            alone = {} if asked == 1 else {"devices": 1, "strategy": "auto"}
            _run(config, evaluator, loader, _Writer(log, advance, times), **alone)
            return
        _told_by_devices(log.path.parent)  # by those of an attempt that failed
        with _watched(log.path, advance):
            more = {"devices": devices, "strategy": strategy_of(config)}
            _run(config, evaluator, loader, _Writer(log, _ignore, times), **more)
    for told in _told_by_devices(log.path.parent):
        for kind, spent in told["seconds"].items():
            evaluator.seconds[kind] += spent
        for kind, count in told["frames"].items():
            evaluator.frames[kind] += count


def _run(config: DictConfig, evaluator: ClipReader, loader: DataLoader[Any], writer: "_Writer", **more: Any) -> None:
    trainer: pl.Trainer = build(
        config,
        "trainer",
        callbacks=[writer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **surroundings(config),
        **more,
    )
    try:
        with own_environment():
            trainer.predict(evaluator, dataloaders=loader, return_predictions=False)
    except ProcessException as error:
        raise device_failure(error, trainer.num_devices) from error


def surroundings(config: DictConfig) -> dict[str, Any]:
    """What Trainer needs to keep to this machine, whatever a cluster says in variables; none for a named strategy."""
    chosen = str(config.trainer.get("strategy", "auto"))
    return {"plugins": [LightningEnvironment()]} if chosen == "auto" else {}


def _only(items: Sequence[list[LoadedClip]]) -> list[LoadedClip]:
    (item,) = items
    return item


def _ignore(_: int) -> None:
    pass


class _Writer(Callback):
    """Writes the records of each batch as soon as it is done."""

    def __init__(self, log: Log, advance: Callable[[int], None], times: Times | None) -> None:
        self.records, self.advance, self.times = log, advance, times

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            end_loaders_at_exit()

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
            write_json(path, {"seconds": module.seconds, "frames": module.frames})


def _told_by_devices(folder: Path) -> list[dict[str, Any]]:
    """What each device's process spent and read, by kind; the files are removed."""
    found = []
    for path in folder.glob(f"{TOLD}*.json"):
        found.append(read_json(path) or {"seconds": {}, "frames": {}})
        path.unlink()
    return found


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
