"""Run jobs one after another or side by side, tell how each ended, and sum up a multirun."""

import errno
import json
import os
import sys
import traceback
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from videopool.config.errors import ConfigError, Stopped
from videopool.errors import UserError
from videopool.inference.device_failure import DeviceFailed
from videopool.results import PointBusy
from videopool.results.manifest import now
from videopool.runtime.exit_code import settle
from videopool.runtime.outcome import BUSY, COMPLETE, FAILED, Outcome
from videopool.top_level import check_top_level

# Where each job's function is; imported when it is asked for, so that none waits for another's libraries.
JOBS = {
    "evaluate": "videopool.jobs.evaluate:evaluate",
    "report": "videopool.jobs.report:report",
    "compare": "videopool.jobs.compare:compare_points",
    "dashboard": "videopool.jobs.dashboard:dashboard",
    "plan": "videopool.jobs.plan:plan",
    "inspect": "videopool.jobs.inspect:inspect_model",
    "features": "videopool.jobs.features:features",
    "norms": "videopool.jobs.norms:norms",
    "show": "videopool.jobs.show:show",
    "check_videos": "videopool.jobs.check_videos:check_videos",
    "speed": "videopool.jobs.speed:speed",
    "finetune": "videopool.jobs.finetune:finetune",
    "pretrain": "videopool.jobs.pretrain:pretrain",
}
OUTCOMES = "VIDEOPOOL_OUTCOMES"  # names the file to which jobs of a multirun add how they ended
STARTS = "VIDEOPOOL_STARTS"  # names the file to which they add that they began and ended, for one command
MOST_KILLS = 2  # of one point
MOST_KILLS_JOBLIB = 3  # which ends the points beside a killed one too
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # what no program can mend


def run_and_tell(config: DictConfig) -> str:
    """Run one job, print how it ended, and note it for the multirun it belongs to.

    Returns:
        The status of the outcome. Only a stop by the user raises (KeyboardInterrupt).
    """
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    outcome = _given_up() if multirun else None
    if outcome is None:
        _mark("began")
        outcome = _run(config)
        _mark("ended")
    mark = {COMPLETE: "done" if outcome.fresh else "kept", FAILED: "FAILED", BUSY: "busy"}[outcome.status]
    number = f"[{HydraConfig.get().job.num}] " if multirun else ""
    stream = sys.stderr if outcome.status == FAILED else sys.stdout
    print(f"{number}{mark:>6}  {outcome.name}: {outcome.message}", file=stream, flush=True)
    if multirun and OUTCOMES in os.environ:
        with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
            file.write(json.dumps({"number": HydraConfig.get().job.num, **outcome.as_dict()}) + "\n")
    elif outcome.row is not None:
        from videopool.planning.table import show_plan

        show_plan([outcome.row])
    elif evaluates(config) and outcome.status == COMPLETE:
        _tell_point(outcome)
    elif config.job.name == "norms" and outcome.status == COMPLETE:
        from videopool.measuring.table import tell_norms

        tell_norms(Path(outcome.folder))
    if outcome.status == FAILED or (outcome.status == BUSY and not multirun):
        settle(1)  # a multirun waits at its end for what is busy
    return outcome.status


def _mark(what: str) -> None:
    """Add to the command's list that this point began or ended."""
    if STARTS in os.environ:
        with open(os.environ[STARTS], "a", encoding="utf-8") as file:
            file.write(f"{what} {HydraConfig.get().job.num}\n")


def _given_up() -> Outcome | None:
    """A failure if this point's process did not live through earlier attempts of the command."""
    path, number = Path(os.environ.get(STARTS, "")), HydraConfig.get().job.num
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kills = lines.count(f"began {number}") - lines.count(f"ended {number}")
    most = MOST_KILLS_JOBLIB if "joblib" in HydraConfig.get().launcher._target_ else MOST_KILLS
    if kills < most:
        return None
    return Outcome(FAILED, _overrides(), f"its process was killed {kills} times (out of memory?)")


def _run(config: DictConfig) -> Outcome:
    try:
        check_top_level(config)
    except ValueError as error:
        return Outcome(FAILED, _overrides(), str(error))
    name = str(config.job.name)
    try:
        if name not in JOBS:
            raise ConfigError(f"job.name={name!r}: choose one of {', '.join(JOBS)}")
        module, function = JOBS[name].split(":")
        job: Callable[[DictConfig], Outcome] = getattr(import_module(module), function)
        return job(config)
    except Stopped as stop:
        print(f"videopool: {stop}", file=sys.stderr)
        raise KeyboardInterrupt from None
    except PointBusy as error:
        return Outcome(BUSY, error.folder.name, str(error), str(error.folder))
    except UserError as error:
        return Outcome(FAILED, _overrides() or name, str(error))
    except (MemoryError, torch.OutOfMemoryError):
        return Outcome(FAILED, _overrides() or name, "out of memory: lower job.max_visual_tokens or frames.num")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            return Outcome(FAILED, _overrides() or name, f"{error.filename or config.results_dir}: {error.strerror}")
        # An error of the program, not of the user: its trace is kept, and the other points of the sweep go on.
        trace = _keep_trace(config)
        line = " ".join(str(error).split())[:300]
        told = line if isinstance(error, DeviceFailed) else f"{type(error).__name__}: {line}"
        return Outcome(FAILED, _overrides() or name, f"internal error: {told} ({trace})")


def _keep_trace(config: DictConfig) -> str:
    """Write the current traceback to a file of the study; says where, or prints it if that fails."""
    folder = Path(config.results_dir) / config.study / "errors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{now().replace(':', '')}-{uuid.uuid4().hex[:6]}.txt"
        path.write_text(traceback.format_exc(), encoding="utf-8")
        return f"trace: {path}"
    except OSError:
        traceback.print_exc()
        return "trace above"


def _overrides() -> str:
    return " ".join(HydraConfig.get().overrides.task) if HydraConfig.initialized() else ""


def evaluates(config: DictConfig) -> bool:
    """Whether the job ends with scores."""
    return config.job.name == "evaluate" or (config.job.name == "finetune" and bool(config.job.evaluate))


def _tell_point(outcome: Outcome) -> None:
    folder = Path(outcome.folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    for kind in ("groups", "tasks"):
        for name, one in metrics[kind].items():
            if one["score"] is not None and name:
                chance = "" if one["chance"] is None else f"  chance {100 * one['chance']:.1f}"
                known = one["ci_low"] is not None
                interval = f"[{100 * one['ci_low']:.1f}, {100 * one['ci_high']:.1f}]" if known else ""
                print(f"        {name:<22}{100 * one['score']:5.1f} {interval:<14} n={one['n']}{chance}")
    spent = " | ".join(f"{kind} {seconds:.1f}" for kind, seconds in metrics["seconds"].items())
    print(f"        seconds: {spent}; peak memory {metrics['peak_memory_bytes'] / 1e9:.2f} GB")
    print(f"        files: {folder}")
