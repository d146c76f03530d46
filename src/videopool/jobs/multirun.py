"""A command from its first line to its last: its log, its progress, what its points make together, how it ended.

Hydra builds the callback before a job's libraries are imported, so this file imports none of them at its top.
"""

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from videopool.errors import UserError, one_line
from videopool.inference.gpus import share_gpus
from videopool.runtime import log, sweep
from videopool.runtime.exit_code import settle
from videopool.runtime.kills import STARTS, forget
from videopool.runtime.outcome import BUSY, COMPLETE, FAILED
from videopool.runtime.progress import be_silent, begin_sweep, doing, finish, progress
from videopool.runtime.telling import begin_command, tell_end

WAIT_SECONDS = 1.0
FIRST_REPORT = 2  # complete points before the first report on the way


class SweepCallback(Callback):
    """Begins the log and the display; sums up a multirun: its report or plan, points that failed, the exit code."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        begin_command(config, 1)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._started = time.perf_counter()
        folder = Path(config.hydra.sweep.dir)
        name = uuid.uuid4().hex[:12]
        points = sweep.begin(config, folder / f"outcomes-{name}.jsonl")
        begin_sweep(points)
        if STARTS not in os.environ:  # a command that goes on after a kill keeps counting
            os.environ[STARTS] = str((folder / f"starts-{name}").resolve())
            begin_command(config, points)
        share_gpus(config)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if sweep.elsewhere() and (sys.stdout.isatty() or sweep.facts()["launcher"] == "JoblibLauncher"):
            be_silent()  # the process that launched this one shows its work

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write the report on the way, so that there is something to look at before all points are done."""
        points, outcomes = sweep.facts().get("points", 0), sweep.ended()
        done = [o for o in outcomes if o["status"] == COMPLETE and o["job"] == "evaluate"]
        fresh = any(o["fresh"] for o in done if o["number"] == config.hydra.job.num)
        if not fresh or len(done) < FIRST_REPORT or len(outcomes) == points:
            return
        from videopool.jobs.evaluate import report_on_the_way

        try:
            path = sweep.sparingly(lambda: report_on_the_way(config, f"{len(done)} of {points} points so far."))
        except Exception as error:  # it is written in full at the end
            log.detail(f"no report on the way: {one_line(error)}")
        else:
            if path:
                log.say(f"results of {len(done)} points so far: {path}")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        try:
            self._end(config)
        except Exception as error:  # Hydra would make a warning of it
            log.fail(f"videopool: internal error: {one_line(error)} ({log.trace()})")
            settle(3)  # an internal error

    def _end(self, config: DictConfig) -> None:
        begin_sweep(0)
        doing("summing up")
        outcomes = sweep.end()
        forget()
        _wait_for_others(outcomes)
        _sum_up(config, outcomes)
        finish()
        bad = [outcome for outcome in outcomes if outcome["status"] != COMPLETE]
        tell_end(outcomes, bad, time.perf_counter() - self._started)
        if bad or not outcomes:
            settle(1)


def _wait_for_others(outcomes: list[dict[str, Any]]) -> None:
    """Wait until points that other processes have are complete, or left by them."""
    busy = [outcome for outcome in outcomes if outcome["status"] == BUSY]
    if not busy:
        return
    from videopool.results import is_claimed, is_complete

    log.say(f"waiting for {len(busy)} points that another process works on")
    with progress("waiting for another process", len(busy)) as advance:
        for outcome in busy:
            folder = Path(outcome["folder"])
            while outcome["status"] == BUSY:
                if is_complete(folder):
                    outcome |= {"status": COMPLETE, "message": "finished by another process"}
                elif not is_claimed(folder):
                    left = "left by the process that had it; give the command again"
                    outcome |= {"status": FAILED, "message": left}
                else:
                    time.sleep(WAIT_SECONDS)
            advance(1)


def _sum_up(config: DictConfig, outcomes: list[dict[str, Any]]) -> None:
    """What the points of each job make together."""
    from videopool.jobs.run import JOBS, job_of

    for name in [name for name in JOBS if any(outcome["job"] == name for outcome in outcomes)]:
        try:
            if sum_up := getattr(job_of(name), "sum_up", None):
                sum_up(config, [outcome for outcome in outcomes if outcome["job"] == name])
        except UserError as error:
            log.fail(f"videopool: {name}: the points are not summed up: {error}")
