"""A command from its first line to its last: its log, its progress, what its points make together, how it ended.

Hydra builds the callback before a job's libraries are imported, so this file imports none of them at its top.
"""

import os
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from videopool import __version__
from videopool.errors import UserError, one_line
from videopool.runtime import log, sweep
from videopool.runtime.exit_code import settle
from videopool.runtime.kills import STARTS
from videopool.runtime.outcome import BUSY, COMPLETE, FAILED
from videopool.runtime.progress import be_silent, begin_sweep, doing, finish, progress

WAIT_SECONDS = 1.0
INTERNAL = 3  # exit code
REPORT = ".report"  # ends the name of a file beside that of the outcomes
QUICK = ("plan", "inspect", "compare", "dashboard", "report")  # jobs that only read, or are over at once
FIRST_REPORT, EARLIEST = 2, 20.0  # complete points, and seconds, before the first report on the way
SPARING = 40  # a further one follows after so many times the seconds that the last one took


class SweepCallback(Callback):
    """Begins the log and the display; sums up a multirun: its report or plan, points that failed, the exit code."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        _begin(config, 1)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._started, self._first = time.perf_counter(), True
        folder = Path(config.hydra.sweep.dir)
        with suppress(OSError):  # Hydra makes it too, and tells
            folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex[:12]
        os.environ[sweep.OUTCOMES] = str((folder / f"outcomes-{name}.jsonl").resolve())
        with suppress(OSError):
            Path(os.environ[sweep.OUTCOMES] + REPORT).write_text(str(EARLIEST / SPARING))
        points = sweep.begin(config)
        if STARTS not in os.environ:  # a command that goes on after a kill keeps counting
            os.environ[STARTS] = str((folder / f"starts-{name}").resolve())
            _begin(config, points)
        begin_sweep(points)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        # Bars of several processes would overwrite each other.
        if sweep.elsewhere() and (sys.stdout.isatty() or sweep.facts()["launcher"] == "JoblibLauncher"):
            be_silent()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write the report on the way, so that there is something to look at before all points are done."""
        points, outcomes = sweep.facts().get("points", 0), sweep.ended()
        done = [o for o in outcomes if o["status"] == COMPLETE and o["job"] == "evaluate"]
        fresh = any(o["fresh"] for o in done if o["number"] == config.hydra.job.num)
        if not fresh or len(done) < FIRST_REPORT or len(outcomes) == points:
            return
        # The age of this file, and the seconds in it, are those of the last report, whichever process wrote it.
        last = Path(os.environ[sweep.OUTCOMES] + REPORT)
        try:
            if time.time() < last.stat().st_mtime + SPARING * float(last.read_text()):
                return
            os.utime(last)  # first: other processes pass
            from videopool.jobs.evaluate import report_on_the_way

            started = time.perf_counter()
            path = report_on_the_way(config, f"{len(done)} of {points} points so far.")
            last.write_text(str(time.perf_counter() - started))
        except Exception as error:  # it is written again, and in full, at the end
            log.detail(f"no report on the way: {one_line(error)}")
        else:
            if not sweep.elsewhere() and self._first:
                log.say(f"results so far: {path}, written again as points end")
            self._first = False

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        try:
            self._end(config)
        except Exception as error:  # Hydra would make a warning of it
            log.fail(f"videopool: internal error: {one_line(error)} ({log.trace()})")
            settle(INTERNAL)

    def _end(self, config: DictConfig) -> None:
        outcomes = sweep.ended()
        Path(os.environ[sweep.OUTCOMES] + REPORT).unlink(missing_ok=True)
        Path(os.environ.pop(sweep.OUTCOMES)).unlink(missing_ok=True)
        Path(os.environ.pop(STARTS)).unlink(missing_ok=True)
        begin_sweep(0)
        _wait_for_others(outcomes)
        _sum_up(config, outcomes)
        finish()
        seconds = time.perf_counter() - self._started
        bad = [o for o in outcomes if o["status"] != COMPLETE]
        log.say(f"{len(outcomes) - len(bad)} of {len(outcomes)} points complete, in {seconds:.0f} s")
        if log.verbose():
            from videopool.results.manifest import peak_memory_bytes

            log.detail(f"peak memory of this process {peak_memory_bytes() / 1e9:.2f} GB")
        tell_failures(bad)
        if bad or not outcomes:
            settle(1)
        sweep.end()


def _begin(config: DictConfig, points: int) -> None:
    """Open the log, and say at once what is going to happen: libraries take seconds to import."""
    name = str(OmegaConf.select(config, "job.name"))
    if name in QUICK or sweep.elsewhere():
        return
    folder = Path(config.results_dir) / config.study
    log.open_log(folder, sys.argv[1:], __version__)
    job = "" if name == "evaluate" else f"job={name}, "
    count = "" if points == 0 else f"{points} point{'s' * (points > 1)}, "
    log.say(f"VideoPool {__version__}: {job}study {config.study}, {count}results in {folder}")
    doing("importing libraries")


def tell_failures(bad: list[dict[str, Any]]) -> None:
    """Print each cause once, with the points that it hit, and what to do."""
    causes: dict[str, list[str]] = {}
    for outcome in bad:
        causes.setdefault(str(outcome["message"]).splitlines()[0], []).append(str(outcome["name"]))
    for cause, names in causes.items():
        log.fail(f"failed: {cause}")
        for line in sweep.compact(names):
            log.fail(f"    {line}")
    if bad:
        log.fail("Finished points are kept: mend the cause, then give the same command again.")


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
