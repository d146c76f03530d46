"""The program as a command: the part processes of job=speed, and trainings that are stopped and resumed."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from videopool.config.errors import ConfigError
from videopool.results.point import TRAINING_LOG, read_json, read_training_log
from videopool.speed.bench import POINT_KEYS, Bench, Line

SIGNALS = {"Ctrl-C": signal.SIGINT, "kill": signal.SIGTERM, "kill -9": signal.SIGKILL}
PATIENCE = 300.0  # seconds to wait for a step
GLANCE = 0.02  # seconds between two looks at the log


def processes(bench: Bench, line: Line) -> dict[str, Any]:
    """Part e: a multirun by one process and by several, one thread each. Raises ConfigError if one fails.

    Rates are of the whole command with its start and, `at_work`, from the first point's begin to the last one's end.
    """
    job, rows = bench.config.job, list[dict[str, Any]]()
    step = line("processes", len(job.processes))
    words = ["-m", *shlex.split(str(job.multirun)), "features=memory", "benchmark=mvbench"]
    words += [f"benchmark.root={bench.clips}", f"benchmark.tasks=[questions_{bench.size['per_clip']}]"]
    words += [f"job.{key}={job[key]}" for key in POINT_KEYS]
    for count in job.processes:
        study, started = f"e-{count}", time.perf_counter()
        begin = partial(_start, bench, study, "evaluate", words, own_session=False, OMP_NUM_THREADS="1")
        for process in [begin() for _ in range(count)]:
            _finish(process, "job.multirun")
        seconds = time.perf_counter() - started
        done = list((bench.folder / study).glob("*/metrics.json"))
        # The file system's clock: when points began and when they were complete. A later process claims them again.
        begun = min(path.with_name(name).stat().st_mtime for path in done for name in ("lock", "run.json"))
        at_work = max(path.stat().st_mtime for path in done) - begun
        rate, rate_at_work = 60 * len(done) / seconds, 60 * len(done) / at_work
        rows.append({
            "processes": int(count), "points": len(done), "seconds": seconds, "points_per_minute": rate,
            "seconds_at_work": at_work, "points_per_minute_at_work": rate_at_work,
        })  # fmt: skip
        rows[-1]["speed_up"] = rate / rows[0]["points_per_minute"]
        rows[-1]["speed_up_at_work"] = rate_at_work / rows[0]["points_per_minute_at_work"]
        step()
    return {"rows": rows}


def resumed(bench: Bench, way: str) -> dict[str, Any]:
    """Stop a training by a signal after half of its steps, and give the same command again.

    Ctrl-C and kill keep the last step; kill -9 goes back to the last checkpoint. `seconds` are those from the start of
    the second command to the end of its first step; the numbers of steps are those `taken` before, `kept` of these, and
    taken `again`. Raises ConfigError if a command fails, with its last line, and AssertionError if the log does not
    have each step once.
    """
    settings = bench.config.job.training
    recipe, steps, study = settings.recipe, int(settings.resume_steps), f"g-{way.replace(' ', '')}"
    words = ["pooling=adaptive_Tx6x6", f"frames.num={settings.frames}"]
    words += ["training_data=llava", *(f"training_data.sources.llava.{k}={v}" for k, v in bench.conversations.items())]
    words += [f"training.{name}={recipe[name]}" for name in ("global_batch", "micro_batch")]
    words += [f"training.steps={steps}", f"training.validation.share={recipe.validation.share}"]
    words += ["features=disk", "features.dtype=null", f"features.root={bench.folder / 'features'}"]
    words += ["job.evaluate=false", "job.workers=0", f"job.checkpoint_every={settings.job.checkpoint_every}"]
    start = partial(_start, bench, study, "finetune", [*words, f"hydra.run.dir={bench.folder}"])

    def taken() -> list[int]:
        """The steps in the log, which the first of them begins."""
        logs = (bench.folder / study).glob(f"*/{TRAINING_LOG}")
        return [int(row["step"]) for log in logs for row in read_training_log(log.parent) if "loss" in row]

    first = start()
    _wait(first, lambda: len(taken()) >= max(1, steps // 2))
    first.send_signal(SIGNALS[way])
    first.communicate()
    (log,), before = (bench.folder / study).glob(f"*/{TRAINING_LOG}"), taken()[-1]
    kept = int(str((read_json(log.parent / "checkpoints" / "last.json") or {"step": 0})["step"]))
    if kept >= steps:
        raise ConfigError("job.training.resume_steps: the training was done before it could be stopped; give more")
    begun, started = time.time_ns(), time.perf_counter()
    second = start()
    _wait(second, lambda: log.stat().st_mtime_ns > begun and kept + 1 in taken())
    seconds = time.perf_counter() - started
    _finish(second, "job.training")
    if taken() != list(range(1, steps + 1)):
        raise AssertionError(f"{log} does not have each of {steps} steps once")
    return {"way": way, "seconds": seconds, "steps": steps, "taken": before, "kept": kept, "again": before - kept}


def _start(
    bench: Bench, study: str, job: str, words: list[str], own_session: bool = True, **more: str
) -> "subprocess.Popen[str]":
    """Start the program with the bench's model and results folder; `more` are variables of its environment."""
    command = [sys.executable, "-m", "videopool", *words, f"job={job}", "logger=none", f"study={study}"]
    command += [f"results_dir={bench.folder}", f"data_dir={bench.folder}", f"trainer.accelerator={bench.device}"]
    command += [f"model.{name}={value}" for name, value in bench.model.items() if value is not None]
    # A multirun around this job has variables of its own, which do not concern the command.
    own = {name: value for name, value in os.environ.items() if not name.startswith("VIDEOPOOL_")}
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**own, **more}, start_new_session=own_session, **streams)


def _finish(process: "subprocess.Popen[str]", key: str, wrong: str = "") -> None:
    """Wait for the end. Raises ConfigError if it is a failure, or `wrong` in any case."""
    errors = process.communicate()[1]
    if process.returncode or wrong:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"{key}: the command ended {wrong or f'with {process.returncode}'}: {last}")


def _wait(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> None:
    """Wait for something. Raises ConfigError if the process ends before it, or PATIENCE is over."""
    started = time.perf_counter()
    while not ready():
        if process.poll() is not None:
            _finish(process, "job.training", wrong="too early")
        if time.perf_counter() - started > PATIENCE:
            process.kill()
            raise ConfigError(f"job.training: no step within {PATIENCE:g} seconds")
        time.sleep(GLANCE)
