"""Run one job, alone or in a multirun, and print its outcome."""

import errno
import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from videopool.config.errors import ConfigError, Stopped
from videopool.errors import UserError, one_line
from videopool.inference.device_failure import DeviceFailed
from videopool.results import PointBusy
from videopool.runtime.exit_code import settle
from videopool.runtime.kills import kills, mark
from videopool.runtime.outcome import BUSY, COMPLETE, FAILED, Outcome, keep_trace
from videopool.top_level import check_top_level

# The modules of this room that are jobs.
JOBS = (
    "evaluate", "report", "compare", "dashboard", "plan", "inspect", "features", "norms", "show", "check_videos",
    "speed", "finetune", "pretrain",
)  # fmt: skip
OUTCOMES = "VIDEOPOOL_OUTCOMES"  # names the file for the outcomes of a multirun
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
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if multirun and (count := kills()):
        outcome = Outcome(FAILED, _overrides(), f"its process was killed {count} times (out of memory?)")
    else:
        mark("began")
        outcome = _run(config)
        mark("ended")
    word = {COMPLETE: "done" if outcome.fresh else "kept", FAILED: "FAILED", BUSY: "busy"}[outcome.status]
    number = f"[{HydraConfig.get().job.num}] " if multirun else ""
    stream = sys.stderr if outcome.status == FAILED else sys.stdout
    print(f"{number}{word:>6}  {outcome.name}: {outcome.message}", file=stream, flush=True)
    if multirun and OUTCOMES in os.environ:
        line = {"number": HydraConfig.get().job.num, "job": OmegaConf.select(config, "job.name"), **asdict(outcome)}
        with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    elif outcome.status == COMPLETE and (tell := getattr(job_of(config.job.name), "tell", None)):
        tell(config, outcome)
    if outcome.status == FAILED or (outcome.status == BUSY and not multirun):
        settle(1)  # a multirun waits at its end for busy points
    return outcome.status


def _run(config: DictConfig) -> Outcome:
    try:
        check_top_level(config)
    except ValueError as error:
        return Outcome(FAILED, _overrides(), str(error))
    try:
        return job_of(config.job.name).run(config)
    except Stopped as stop:
        print(f"videopool: {stop}", file=sys.stderr)
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
            trace = keep_trace(Path(config.results_dir) / config.study)
            message = f"internal error: {kind}{one_line(error)} ({trace})"
    return Outcome(FAILED, _overrides() or str(config.job.name), message)


def _overrides() -> str:
    return " ".join(HydraConfig.get().overrides.task) if HydraConfig.initialized() else ""
