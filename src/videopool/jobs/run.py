"""Run jobs one after another or side by side, tell how each ended, and sum up a multirun."""

import errno
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from videopool.config.errors import USER_ERRORS, ConfigError, Stopped
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
OUTCOMES = "VIDEOPOOL_OUTCOMES"  # names the file to which jobs of a multirun add how they ended
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # what no program can mend


class Job(Protocol):
    """A module of this room that is a job. Two more functions are optional:

    tell(config, outcome): print more of a complete job that ran alone.
    sum_up(config, outcomes): print and write what the points of a multirun make together (Outcome.as_dict of each).
    """

    @staticmethod
    def run(config: DictConfig) -> Outcome: ...


def job_of(name: str) -> Job:
    """The job of a name; imported when it is asked for, so that none waits for another's libraries.

    Raises:
        ConfigError: there is none.
    """
    if name not in JOBS:
        raise ConfigError(f"job.name={name!r}: choose one of {', '.join(JOBS)}")
    return cast(Job, import_module(f"videopool.jobs.{name}"))


def run_and_tell(config: DictConfig) -> str:
    """Run one job, print how it ended, and note it for the multirun it belongs to.

    Returns:
        The status of the outcome. Only a stop by the user raises (KeyboardInterrupt).
    """
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if multirun and (count := kills()):
        outcome = Outcome(FAILED, _overrides(), f"its process was killed {count} times (out of memory?)")
    else:
        mark("began")
        outcome = _run(config)
        mark("ended")
    how = {COMPLETE: "done" if outcome.fresh else "kept", FAILED: "FAILED", BUSY: "busy"}[outcome.status]
    number = f"[{HydraConfig.get().job.num}] " if multirun else ""
    stream = sys.stderr if outcome.status == FAILED else sys.stdout
    print(f"{number}{how:>6}  {outcome.name}: {outcome.message}", file=stream, flush=True)
    if multirun and OUTCOMES in os.environ:
        line = {"number": HydraConfig.get().job.num, "job": OmegaConf.select(config, "job.name"), **outcome.as_dict()}
        with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    elif outcome.status == COMPLETE and (tell := getattr(job_of(config.job.name), "tell", None)):
        tell(config, outcome)
    if outcome.status == FAILED or (outcome.status == BUSY and not multirun):
        settle(1)  # a multirun waits at its end for what is busy
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
    except USER_ERRORS as error:
        message = str(error)
    except (MemoryError, torch.OutOfMemoryError):
        message = "out of memory: lower job.max_visual_tokens or frames.num"
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            message = f"{error.filename or config.results_dir}: {error.strerror}"
        else:  # An error of the program, not of the user: its trace is kept, and the other points of the sweep go on.
            line = " ".join(str(error).split())[:300]
            told = line if isinstance(error, DeviceFailed) else f"{type(error).__name__}: {line}"
            message = f"internal error: {told} ({keep_trace(Path(config.results_dir) / config.study)})"
    return Outcome(FAILED, _overrides() or str(config.job.name), message)


def _overrides() -> str:
    return " ".join(HydraConfig.get().overrides.task) if HydraConfig.initialized() else ""
