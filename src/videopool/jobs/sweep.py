"""Run jobs one after another or side by side, tell how each ended, and sum up a multirun."""

import json
import os
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from videopool.jobs.errors import USER_ERRORS, ConfigError, Stopped
from videopool.jobs.evaluate import evaluate
from videopool.jobs.inspect_model import inspect_model
from videopool.jobs.outcome import BUSY, COMPLETE, FAILED, Outcome
from videopool.jobs.plan import plan
from videopool.jobs.plan_table import show_plan, write_plan
from videopool.jobs.pretrain import pretrain
from videopool.jobs.report import name_files, report, write_report
from videopool.jobs.status import settle
from videopool.results import PointBusy, ResultsError
from videopool.results.manifest import now, peak_memory_bytes

JOBS: dict[str, Callable[[DictConfig], Outcome]] = {
    "evaluate": evaluate,
    "report": report,
    "plan": plan,
    "inspect": inspect_model,
    "pretrain": pretrain,
}
OUTCOMES = "VIDEOPOOL_OUTCOMES"  # names the file to which jobs of a multirun add how they ended


def run_and_tell(config: DictConfig) -> str:
    """Run one job, print how it ended, and note it for the multirun it belongs to.

    Returns:
        The status of the outcome. Only a stop by the user raises (KeyboardInterrupt).
    """
    outcome = _run(config)
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    mark = {COMPLETE: "done" if outcome.fresh else "kept", FAILED: "FAILED", BUSY: "busy"}[outcome.status]
    number = f"[{HydraConfig.get().job.num}] " if multirun else ""
    stream = sys.stderr if outcome.status == FAILED else sys.stdout
    print(f"{number}{mark:>6}  {outcome.name}: {outcome.message}", file=stream, flush=True)
    if multirun and OUTCOMES in os.environ:
        with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
            file.write(json.dumps({"number": HydraConfig.get().job.num, **outcome.as_dict()}) + "\n")
    elif outcome.row is not None:
        show_plan([outcome.row])
    elif config.job.name == "evaluate" and outcome.status == COMPLETE:
        _tell_point(outcome)
    if outcome.status != COMPLETE:
        settle(1)
    return outcome.status


def _run(config: DictConfig) -> Outcome:
    name = str(config.job.name)
    try:
        if name not in JOBS:
            raise ConfigError(f"job.name={name!r}: choose one of {', '.join(JOBS)}")
        return JOBS[name](config)
    except Stopped as stop:
        print(f"videopool: {stop}", file=sys.stderr)
        raise KeyboardInterrupt from None
    except PointBusy as error:
        return Outcome(BUSY, _overrides() or name, str(error))
    except USER_ERRORS as error:
        return Outcome(FAILED, _overrides() or name, str(error))
    except (MemoryError, torch.OutOfMemoryError):
        return Outcome(FAILED, _overrides() or name, "out of memory: lower job.max_visual_tokens or frames.num")
    except Exception as error:
        # An error of the program, not of the user: its trace is kept, and the other points of the sweep go on.
        trace = _keep_trace(config)
        line = " ".join(str(error).split())[:300]
        return Outcome(FAILED, _overrides() or name, f"internal error: {type(error).__name__}: {line} ({trace})")


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


def _tell_point(outcome: Outcome) -> None:
    folder = Path(outcome.folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    for kind in ("groups", "tasks"):
        for name, one in metrics[kind].items():
            if one["score"] is not None and name:
                chance = "" if one["chance"] is None else f"  chance {100 * one['chance']:.1f}"
                interval = f"[{100 * one['ci_low']:.1f}, {100 * one['ci_high']:.1f}]"
                print(f"        {name:<22}{100 * one['score']:5.1f} {interval:<14} n={one['n']}{chance}")
    spent = " | ".join(f"{kind} {seconds:.1f}" for kind, seconds in metrics["seconds"].items())
    print(f"        seconds: {spent}; peak memory {metrics['peak_memory_bytes'] / 1e9:.2f} GB")
    print(f"        files: {folder}")


class SweepCallback(Callback):
    """Sums up a multirun: the report or plan of its study, the points that are not complete, the exit code."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._started = time.perf_counter()
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[OUTCOMES] = str((folder / f"outcomes-{uuid.uuid4().hex[:12]}.jsonl").resolve())

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        path = Path(os.environ.pop(OUTCOMES))
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        # Points that ran side by side ended in any order.
        outcomes = sorted((json.loads(line) for line in lines), key=lambda outcome: outcome["number"])
        _sum_up(config, outcomes)
        seconds = time.perf_counter() - self._started
        print(
            f"{len(outcomes)} points in {seconds:.0f} s; peak memory of this process {peak_memory_bytes() / 1e9:.2f} GB"
        )
        bad = [o for o in outcomes if o["status"] != COMPLETE]
        for outcome in bad:
            print(f"not complete: {outcome['name']}: {str(outcome['message']).splitlines()[0]}", file=sys.stderr)
        if bad or not outcomes:
            settle(1)


def _sum_up(config: DictConfig, outcomes: list[dict[str, Any]]) -> None:
    """The table and files that a multirun's points make together."""
    study = Path(config.results_dir) / config.study
    rows = [outcome["row"] for outcome in outcomes if outcome["row"] is not None]
    try:
        if rows:
            show_plan(rows)
            print(f"wrote {write_plan(rows, study)}")
        elif any(outcome["folder"] for outcome in outcomes) and config.job.name == "evaluate":
            files, _table = write_report(study, str(config.baseline), tell=True)
            print(name_files(files))
    except ResultsError as error:
        print(f"videopool: no {'plan' if rows else 'report'}: {error}", file=sys.stderr)
