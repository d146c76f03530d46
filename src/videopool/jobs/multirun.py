"""A multirun: what its points make together, and how it ended."""

import json
import os
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from videopool.errors import UserError
from videopool.jobs.run import JOBS, OUTCOMES, job_of
from videopool.results import is_claimed, is_complete
from videopool.results.manifest import peak_memory_bytes
from videopool.runtime.exit_code import settle
from videopool.runtime.kills import STARTS
from videopool.runtime.outcome import BUSY, COMPLETE, FAILED

WAIT_SECONDS = 1.0


class SweepCallback(Callback):
    """Sums up a multirun: the report or plan of its study, the points that are not complete, the exit code."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._started = time.perf_counter()
        folder = Path(config.hydra.sweep.dir)
        with suppress(OSError):  # Hydra makes it too, and tells
            folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex[:12]
        os.environ[OUTCOMES] = str((folder / f"outcomes-{name}.jsonl").resolve())
        if STARTS not in os.environ:  # a command that goes on after a kill keeps counting
            os.environ[STARTS] = str((folder / f"starts-{name}").resolve())

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        path = Path(os.environ.pop(OUTCOMES))
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        Path(os.environ.pop(STARTS)).unlink(missing_ok=True)
        # Points that ran side by side ended in any order.
        outcomes = sorted((json.loads(line) for line in lines), key=lambda outcome: outcome["number"])
        _wait_for_others(outcomes)
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


def _wait_for_others(outcomes: list[dict[str, Any]]) -> None:
    """Wait until points that other processes have are complete, or left by them."""
    busy = [outcome for outcome in outcomes if outcome["status"] == BUSY]
    if busy:
        print(f"waiting for {len(busy)} points that another process works on", flush=True)
    for outcome in busy:
        folder = Path(outcome["folder"])
        while outcome["status"] == BUSY:
            if is_complete(folder):
                outcome |= {"status": COMPLETE, "message": "finished by another process"}
            elif not is_claimed(folder):
                outcome |= {"status": FAILED, "message": "left by the process that had it; give the command again"}
            else:
                time.sleep(WAIT_SECONDS)


def _sum_up(config: DictConfig, outcomes: list[dict[str, Any]]) -> None:
    """What the points of each job make together."""
    for name in [name for name in JOBS if any(outcome["job"] == name for outcome in outcomes)]:
        try:
            if sum_up := getattr(job_of(name), "sum_up", None):
                sum_up(config, [outcome for outcome in outcomes if outcome["job"] == name])
        except UserError as error:
            print(f"videopool: {name}: the points are not summed up: {error}", file=sys.stderr)
