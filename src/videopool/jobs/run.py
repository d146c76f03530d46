"""Run one job, alone or in a multirun, and print its outcome."""

import errno
import os
import time
from dataclasses import asdict
from importlib import import_module
from typing import Protocol, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.commandline.top_level import check_top_level
from videopool.config.errors import ConfigError, Stopped
from videopool.errors import UserError, one_line, out_of_memory
from videopool.inference.devices import DeviceFailed
from videopool.points.setting import prefill_costs
from videopool.results import PointBusy
from videopool.runtime import log, sweep
from videopool.runtime.exit_code import settle
from videopool.runtime.kills import kills, mark
from videopool.runtime.outcome import BUSY, COMPLETE, FAILED, Outcome
from videopool.runtime.preemption import leaving_when_asked
from videopool.runtime.progress import begin_point, doing, finish
from videopool.runtime.telling import label_of, tell_outcome

# The modules of this room that are jobs.
JOBS = (
    "evaluate", "report", "compare", "dashboard", "plan", "inspect", "features", "norms", "show", "check_videos",
    "speed", "finetune", "pretrain", "assemble", "merge", "export", "verify",
    "import",
)  # fmt: skip
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
    label, started = label_of(config), time.perf_counter()
    begin_point(label, prefill_costs)
    doing("working")
    with log.working_on(label):
        if multirun and (count := kills()):
            outcome = Outcome(FAILED, label, f"its process was killed {count} times (out of memory?)")
        else:
            mark("began")
            outcome = leaving_when_asked(lambda: _run(config), label)
            mark("ended")
        outcome.seconds = round(time.perf_counter() - started, 3)
        tell_outcome(outcome)
    if multirun:
        sweep.keep({"number": HydraConfig.get().job.num, "job": str(config.job.name), **asdict(outcome)})
    else:
        finish()
        if log.quiet() and outcome.status == COMPLETE and outcome.folder:
            log.say(f"        files: {outcome.folder}", result=True)
        tell = getattr(job_of(config.job.name), "tell", None)
        if tell and outcome.status == COMPLETE and not log.quiet():
            tell(config, outcome)
    if outcome.status == FAILED or (outcome.status == BUSY and not multirun):
        settle(1)  # a multirun waits at its end for busy points
    return outcome.status


def _run(config: DictConfig) -> Outcome:
    try:
        check_top_level(config)
    except ValueError as error:
        return Outcome(FAILED, label_of(config), str(error))
    try:
        return job_of(config.job.name).run(config)
    except Stopped as stop:
        log.fail(f"videopool: {stop}")
        raise KeyboardInterrupt from None
    except PointBusy as error:
        return Outcome(BUSY, error.folder.name, str(error), str(error.folder))
    except UserError as error:
        message = str(error)
        if error.__cause__ is not None and log.FILE in os.environ:
            log.trace()
    except Exception as error:
        if out_of_memory(error):
            message = "out of memory: lower job.max_visual_tokens or frames.num"
        elif isinstance(error, OSError) and error.errno in DISK:
            message = f"{error.filename or config.results_dir}: {error.strerror}"
        else:  # an error of the program, not of the user: keep its trace; the sweep's other points go on
            kind = "" if isinstance(error, DeviceFailed) else f"{type(error).__name__}: "
            message = f"internal error: {kind}{one_line(error)} ({log.trace()})"
    return Outcome(FAILED, label_of(config), message)
