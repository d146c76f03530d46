"""The program as a command: points in one process and in several; trainings that are stopped and go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from videopool.config.errors import ConfigError
from videopool.results.point import TRAINING_LOG, read_json, read_training_log
from videopool.speed.bench import POINT_KEYS, Bench

SIGNALS = {"Ctrl-C": signal.SIGINT, "kill": signal.SIGTERM, "kill -9": signal.SIGKILL}
PATIENCE = 300.0  # seconds to wait for a step
GLANCE = 0.02  # seconds between two looks at the log


def multirun(made: Bench, processes: int, words: list[str]) -> dict[str, Any]:
    """Run `videopool -m` on the bench's model and clips.

    Args:
        processes: of joblib's launcher, one thread each.
        words: overrides that make the points.

    Returns:
        points, and two rates: over the whole command with its start, and from the first point's begin to the
        last one's end (points_per_minute_at_work).

    Raises:
        ConfigError: the command failed; with its last line.
    """
    study, benchmark = f"e-{processes}", made.benchmark(made.size["questions"])
    command = [
        *_command(made, study, "evaluate", "-m", *words),
        *("features=memory", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={processes}"),
        *("benchmark=mvbench", f"benchmark.root={benchmark['root']}", f"benchmark.tasks={benchmark['tasks']}"),
        *(f"job.{key}={made.config.job[key]}" for key in POINT_KEYS),
    ]
    started = time.perf_counter()
    done = _start(command, own_session=False, OMP_NUM_THREADS="1")
    told = done.communicate()[1]
    seconds = time.perf_counter() - started
    if done.returncode:
        raise ConfigError(f"job.multirun: the command ended with {done.returncode}: {_last(told)}")
    folders = [path.parent for path in (made.folder / study).glob("*/metrics.json")]
    # By the clock of the file system: when points were claimed, and when they were complete.
    begun = min((folder / "lock").stat().st_mtime for folder in folders)
    at_work = max((folder / "metrics.json").stat().st_mtime for folder in folders) - begun
    return {
        "processes": processes,
        "points": len(folders),
        "seconds": seconds,
        "points_per_minute": 60 * len(folders) / seconds,
        "seconds_at_work": at_work,
        "points_per_minute_at_work": 60 * len(folders) / at_work,
    }


def resumed(made: Bench, way: str) -> dict[str, Any]:
    """Stop a training once half of its steps are taken, and give the same command again.

    Args:
        way: one of SIGNALS; Ctrl-C and kill keep the step just taken, kill -9 goes back to the last checkpoint.

    Returns:
        seconds from the start of the second command to the end of its first step, the program's own start included;
        `taken` steps before, `kept` ones, `again`: those that were taken a second time.

    Raises:
        ConfigError: a command failed; with its last line.
        AssertionError: the log has not each step once.
    """
    settings = made.config.job.training
    recipe, steps, study = settings.recipe, int(settings.resume_steps), f"g-{way.replace(' ', '')}"
    command = [
        *_command(made, study, "finetune", "pooling=adaptive_Tx6x6", f"frames.num={settings.frames}"),
        *("training_data=llava", *(f"training_data.sources.llava.{k}={v}" for k, v in made.conversations.items())),
        *(f"training.{name}={recipe[name]}" for name in ("global_batch", "micro_batch")),
        *(f"training.steps={steps}", f"training.validation.share={recipe.validation.share}"),
        *("features=disk", "features.dtype=null", f"features.root={made.folder / 'features'}"),
        *("job.evaluate=false", "job.workers=0", f"job.checkpoint_every={settings.job.checkpoint_every}"),
        *("trainer.accelerator=cpu", f"hydra.run.dir={made.folder}"),
    ]
    first = _start(command)
    log = _log_with(made.folder / study, steps // 2, first)
    first.send_signal(SIGNALS[way])
    first.communicate()
    taken = _steps(log)[-1]
    kept = int(str((read_json(log.parent / "checkpoints" / "last.json") or {"step": 0})["step"]))
    if kept >= steps:
        raise ConfigError("job.training.resume_steps: the training was done before it could be stopped; give more")
    begun, started = time.time_ns(), time.perf_counter()
    second = _start(command)
    while not (log.stat().st_mtime_ns > begun and kept + 1 in _steps(log)):
        _wait(second, started)
    seconds = time.perf_counter() - started
    told = second.communicate()[1]
    if second.returncode:
        raise ConfigError(f"job.training: the command ended with {second.returncode}: {_last(told)}")
    if _steps(log) != list(range(1, steps + 1)):
        raise AssertionError(f"{log} has not each of {steps} steps once")
    return {"way": way, "seconds": seconds, "steps": steps, "taken": taken, "kept": kept, "again": taken - kept}


def _command(made: Bench, study: str, job: str, *words: str) -> list[str]:
    """The program on the bench's model, with its results in the bench's folder."""
    return [
        *(sys.executable, "-m", "videopool", *words, f"job={job}", "logger=none"),
        *(f"results_dir={made.folder}", f"data_dir={made.folder}", f"study={study}"),
        *(f"model.{name}={value}" for name, value in made.model.items() if value is not None),
    ]


def _start(command: list[str], own_session: bool = True, **more: str) -> "subprocess.Popen[str]":
    # What a multirun that this job may be part of keeps for itself is not the command's.
    own = {name: value for name, value in os.environ.items() if not name.startswith("VIDEOPOOL_")}
    nowhere, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(
        command, env={**own, **more}, stdout=nowhere, stderr=pipe, text=True, start_new_session=own_session
    )


def _log_with(study: Path, steps: int, process: "subprocess.Popen[str]") -> Path:
    """The log of the study's one training, once it has so many steps."""
    started = time.perf_counter()
    while True:
        for path in study.glob(f"*/{TRAINING_LOG}"):
            if len(_steps(path)) >= steps:
                return path
        _wait(process, started)


def _wait(process: "subprocess.Popen[str]", started: float) -> None:
    """A moment. Raises ConfigError if there is nothing left to wait for."""
    if process.poll() is not None:
        raise ConfigError(f"job.training: the command ended too early: {_last(process.communicate()[1])}")
    if time.perf_counter() - started > PATIENCE:
        process.kill()
        raise ConfigError(f"job.training: no step within {PATIENCE:g} seconds")
    time.sleep(GLANCE)


def _steps(log: Path) -> list[int]:
    return [int(row["step"]) for row in read_training_log(log.parent) if "loss" in row]


def _last(told: str) -> str:
    return (told.strip().splitlines() or ["no word from it"])[-1]
