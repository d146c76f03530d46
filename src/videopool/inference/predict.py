"""Lightning's predict loop over batches of clips on one device; each batch's records are written at once.

Batches do not depend on the number of devices, which take them in turn, so neither do the records.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader, Dataset

from videopool.config.build import build
from videopool.config.errors import ConfigError
from videopool.features import ClipDataset, LoadedClip
from videopool.inference.reader import ClipReader
from videopool.results.records import Times
from videopool.runtime.interrupts import StopRequest, ignore_interrupts
from videopool.runtime.progress import progress
from videopool.runtime.ranks import SHARDING, START_METHOD, on_cpu, rank_of_process

Clock = Callable[[str], AbstractContextManager[None]]  # adds the time of a block to a kind of work

WATCH_SECONDS = 0.5
# How the processes of Lightning's ddp start, in their strategies' names. Ours are started before Lightning runs.
STARTS = re.compile(r"^(ddp)_(spawn|fork|notebook)")
Share = tuple[int, int]  # this device, of how many


class Batches:
    """A device's lists of at most `size` clips, in order; empty ones after the user asked to stop.

    Loader processes read clips one by one, two lists ahead, so that they share the work on the first list too. The time
    until they have a list is clocked as "wait".
    """

    def __init__(
        self, clips: ClipDataset, size: int, stop: StopRequest, workers: int, clock: Clock, share: Share = (0, 1)
    ) -> None:
        self.clips, self.size, self.stop, self.workers = clips, size, stop, workers
        self.clock = clock if workers else lambda _: nullcontext()  # this process reads, and clocks that itself
        device, devices = share
        self.firsts = range(0, len(clips), size)[device::devices]  # places of the first clips of the lists

    def __len__(self) -> int:
        return len(self.firsts)

    def __iter__(self) -> Iterator[list[LoadedClip]]:
        ahead = max(2 * self.size, 4 * self.workers)
        loaded = iter(loader_of(self.clips, self.workers, ahead, batch_size=None, sampler=self._places()))
        for _ in self.firsts:
            with self.clock("wait"):
                batch = [] if self.stop.asked else list(islice(loaded, self.size))
            yield batch

    def _places(self) -> Iterator[int]:
        """Places of clips; the loader takes each when it has room for one more."""
        for first in self.firsts:
            if not self.stop.asked:
                yield from range(first, min(first + self.size, len(self.clips)))


class Log(Protocol):
    """Takes a model's output for a batch."""

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
    share: Share = (0, 1),
) -> None:
    """Run a model over its share of clips, `batch` at a time, append its output to a log, and its seconds to times."""
    workers = int(config.job.workers) if clips.must_read else 0
    batches = Batches(clips, batch, stop, workers, evaluator.clock, share)
    if not len(batches):
        return
    device = 1 if share[1] == 1 or on_cpu(config) else [share[0]]
    with progress(title, sum(len(clip.samples) for clip in clips.jobs)) as advance:
        trainer = trainer_of(config, _Writer(log, times, advance), devices=device, strategy="auto")
        trainer.predict(evaluator, dataloaders=batches, return_predictions=False)


def loader_of(data: Dataset[Any], workers: int, ahead: int = 0, **more: Any) -> DataLoader[Any]:
    """A loader whose processes, if any, leave signals to the main process; together they keep `ahead` items ready.

    Pixels are pinned for an accelerator.
    """
    more["pin_memory"] = torch.accelerator.is_available()
    if workers:
        more["prefetch_factor"] = max(2, -(-ahead // workers))  # of each
        more |= {"worker_init_fn": ignore_interrupts, "multiprocessing_context": START_METHOD}
    return DataLoader(data, num_workers=workers, **more)


def trainer_of(config: DictConfig, *callbacks: Callback, **more: Any) -> pl.Trainer:
    """The configured Trainer, without files and bars of its own; a cluster's variables tell it nothing."""
    more |= dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    # Under SLURM it would go on with an hpc_ckpt_*.ckpt in its folder.
    more |= {"plugins": [LightningEnvironment()], "default_root_dir": os.devnull}
    trainer: pl.Trainer = build(config, "trainer", callbacks=[*callbacks], **more)
    return trainer


def strategy_of(config: DictConfig) -> str:
    """Lightning's strategy in the processes of devices, or "auto": one device, in this process."""
    strategy = STARTS.sub(r"\1", str(config.trainer.get("strategy") or "auto"))
    if strategy in ("auto", "ddp"):
        return "auto" if int(config.trainer.devices) == 1 else "ddp"
    return strategy


def check_trainer(config: DictConfig) -> None:
    """Raises ConfigError if this machine lacks the trainer's devices, strategy or precision. Starts nothing."""
    asked, precision = str(config.trainer.accelerator), config.trainer.get("precision")
    names = ("auto", "gpu", *AcceleratorRegistry.available_accelerators())
    if asked not in names:
        raise ConfigError(f"trainer.accelerator={asked}: choose one of {', '.join(names)}")
    if rank_of_process() == 0:
        _check_start(config)
    strategy = strategy_of(config)
    if strategy.startswith(SHARDING) and on_cpu(config):
        raise ConfigError(f"trainer.strategy={strategy}: Lightning shards on GPUs only; say trainer=ddp")
    try:
        trainer = trainer_of(config, strategy="auto" if strategy in ("ddp", "fsdp") else strategy)
    except ConfigError as error:
        advice = "" if asked in ("auto", "cpu") else "; trainer.accelerator=cpu needs no GPU, auto takes what is there"
        raise ConfigError(f"trainer.accelerator={asked}: {error}{advice}") from error
    if str(precision).startswith("16") and not str(trainer.precision).startswith("16"):
        raise ConfigError(f"trainer.precision={precision}: this device computes in {trainer.precision} instead; say so")


def _check_start(config: DictConfig) -> None:
    """Raises ConfigError for several machines, and in one of several processes that others started for the devices."""
    devices = int(config.trainer.devices)
    if (nodes := config.trainer.get("num_nodes", 1)) != 1:
        raise ConfigError(f"trainer.num_nodes={nodes}: a point runs on one machine; say 1")
    count = os.environ.get("SLURM_STEP_NUM_TASKS", "1") if devices > 1 else "1"
    if "LOCAL_RANK" in os.environ:  # of torchrun
        count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        once = "start one (srun -n1, no torchrun): it starts a process per device"
        raise ConfigError(f"trainer.devices={devices}: this is one of {count} processes of one command; {once}")


class _Writer(Callback):
    """Writes the records of each batch as soon as it is done."""

    def __init__(self, log: Log, times: Times | None, advance: Callable[[int], None]) -> None:
        self.output, self.times, self.advance = log, times, advance

    def on_predict_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.output.append(outputs)
        if self.times is not None and outputs:
            self.times.add(len(outputs), module.seconds)
        self.advance(len(outputs))


@contextmanager
def lines_watched(path: Path, take: Callable[[Sequence[bytes]], None]) -> Iterator[None]:
    """Hand on the lines that other processes append to a file, soon after they are there."""
    done = threading.Event()

    def watch() -> None:
        place = path.stat().st_size if path.exists() else 0
        last = False
        while not last:
            last = done.wait(WATCH_SECONDS)
            if not path.exists():
                continue
            place = min(place, path.stat().st_size)  # a log that goes on is cut first
            with path.open("rb") as file:
                file.seek(place)
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            place += len(whole)
            take(whole.splitlines())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
