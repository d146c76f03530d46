"""Run one job, alone or in a multirun, and print its outcome."""

import errno
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from typing import Protocol, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from videopool.config.errors import ConfigError, Stopped
from videopool.errors import UserError, one_line
from videopool.inference.device_failure import DeviceFailed
from videopool.results import PointBusy
from videopool.runtime import log, sweep
from videopool.runtime.exit_code import settle
from videopool.runtime.kills import kills, mark
from videopool.runtime.outcome import BUSY, COMPLETE, FAILED, Outcome
from videopool.runtime.progress import begin_point, doing, finish
from videopool.top_level import check_top_level

# The modules of this room that are jobs.
JOBS = (
    "evaluate", "report", "compare", "dashboard", "plan", "inspect", "features", "norms", "show", "check_videos",
    "speed", "finetune", "pretrain",
)  # fmt: skip
WAIT = "give the command again when it has ended, or with -m, which waits for it"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # full or read-only disks: no bug of the program


class Job(Protocol):
    """A module of this room that is a job. Two more functions are optional:

    tell(config, outcome): print the results of a complete job that ran alone.
    sum_up(config, outcomes): write and print the results of a multirun, from the Outcome of each point as a dict.

    `run` raises UserError (ConfigError, ResultsError, ...) for what the user can mend, and Stopped.
    """

    @staticmethod
    def run(config: DictConfig) -> Outcome: ...


def job_of(name: str) -> Job:
    """Import a job by name; no job waits for the libraries of another. Raises ConfigError if there is none."""
    if name not in JOBS:
        raise ConfigError(f"job.name={name!r}: choose one of {', '.join(JOBS)}")
    return cast(Job, import_module(f"videopool.jobs.{name}"))


def run_and_tell(config: DictConfig) -> str:
    """Run one job, print its outcome, and note it for its multirun. Returns the outcome's status.

    Raises KeyboardInterrupt, and nothing else, if the user asked to stop.
    """
    multirun = sweep.in_multirun()
    label, started = _label(config), time.perf_counter()
    begin_point(label, _costs)
    doing("preparing")
    with log.working_on(label):
        if multirun and (count := kills()):
            outcome = Outcome(FAILED, label, f"its process was killed {count} times (out of memory?)")
        else:
            mark("began")
            outcome = _run(config)
            mark("ended")
        outcome.seconds = round(time.perf_counter() - started, 3)
        _tell(config, outcome, multirun)
    if outcome.status == FAILED or (outcome.status == BUSY and not multirun):
        settle(1)  # a multirun waits at its end for busy points
    return outcome.status


def _label(config: DictConfig) -> str:
    """A point by what a multirun varies; a job that runs alone by its name."""
    if sweep.in_multirun() and (words := sweep.label(HydraConfig.get().overrides.task)):
        return words
    return str(OmegaConf.select(config, "job.name"))


def _tell(config: DictConfig, outcome: Outcome, multirun: bool) -> None:
    """Print how a point or job ended, and note it for its multirun."""
    number = f"[{HydraConfig.get().job.num}] " if multirun else ""
    if outcome.status == FAILED:
        same = any(o["status"] == FAILED and o["message"] == outcome.message for o in sweep.ended())
        log.fail(f"{number}FAILED  {outcome.name}" + (" (same cause)" if same else f": {outcome.message}"))
    else:
        word = "busy" if outcome.status == BUSY else "done" if outcome.fresh else "kept"
        wait = f"; {WAIT}" if outcome.status == BUSY and not multirun else ""
        log.say(f"{number}{word:>6}  {outcome.name}: {outcome.message}{wait}", result=not multirun)
    log.detail(f"ended after {outcome.seconds:.1f} s")
    if multirun and sweep.OUTCOMES in os.environ:
        line = {"number": HydraConfig.get().job.num, "job": OmegaConf.select(config, "job.name"), **asdict(outcome)}
        with open(os.environ[sweep.OUTCOMES], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return
    finish()
    if outcome.status == COMPLETE and not log.quiet() and (tell := getattr(job_of(config.job.name), "tell", None)):
        tell(config, outcome)


def _costs() -> dict[int, float]:
    """FLOPs of prefill for each point of a multirun, by number; {} unless they are known for all."""
    from videopool.models import prefill_flops
    from videopool.points.setting import Setting

    with suppress(Exception):  # of a point that cannot run, which says so when it does
        points = [Setting(config) for config in sweep.composed]
        return {number: prefill_flops(point.shape, point.visual_tokens) for number, point in enumerate(points)}
    return {}


def _run(config: DictConfig) -> Outcome:
    try:
        check_top_level(config)
    except ValueError as error:
        return Outcome(FAILED, _label(config), str(error))
    try:
        return job_of(config.job.name).run(config)
    except Stopped as stop:
        log.fail(f"videopool: {stop}")
        raise KeyboardInterrupt from None
    except PointBusy as error:
        return Outcome(BUSY, error.folder.name, str(error), str(error.folder))
    except UserError as error:
        message = str(error)
    except (MemoryError, torch.OutOfMemoryError):
        message = "out of memory: lower job.max_visual_tokens or frames.num"
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            message = f"{error.filename or config.results_dir}: {error.strerror}"
        else:  # an error of the program, not of the user: keep its trace; the sweep's other points go on
            kind = "" if isinstance(error, DeviceFailed) else f"{type(error).__name__}: "
            message = f"internal error: {kind}{one_line(error)} ({log.trace()})"
    return Outcome(FAILED, _label(config), message)
