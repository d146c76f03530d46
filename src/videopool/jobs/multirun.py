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

from videopool.config.errors import ConfigError
from videopool.jobs.run import OUTCOMES, STARTS, evaluates
from videopool.norms import NormsError
from videopool.results import ResultsError, is_claimed, is_complete
from videopool.results.manifest import peak_memory_bytes
from videopool.runtime.exit_code import settle
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
    """The table and files that a multirun's points make together."""
    study = Path(config.results_dir) / config.study
    rows = [outcome["row"] for outcome in outcomes if outcome["row"] is not None]
    try:
        if rows:
            from videopool.planning.table import show_plan, write_plan

            show_plan(rows)
            print(f"wrote {write_plan(rows, study)}")
        elif any(outcome["folder"] for outcome in outcomes) and evaluates(config):
            from videopool.reports.files import name_files, own_figures, write_report, written_report
            from videopool.reports.terminal import show
            from videopool.tracking.study import log_study

            folders = [str(outcome["folder"]) for outcome in outcomes if outcome["folder"]]
            figures = own_figures(config)
            done = written_report(study, str(config.baseline), folders, figures)
            if done is None:
                done = write_report(study, str(config.baseline), own_figures=figures)
                log_study(config, study)
            files, table = done
            show(table, study.name)
            print(name_files(files))
        elif any(outcome["folder"] for outcome in outcomes) and config.job.name == "norms":
            from videopool.measuring.study import sum_up_norms

            sum_up_norms(study)
    except (ConfigError, ResultsError, NormsError) as error:
        print(f"videopool: no {'plan' if rows else 'report'}: {error}", file=sys.stderr)
