"""Part e of job=speed: the program as a command, in one process and in several."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from videopool.config.errors import ConfigError
from videopool.speed.bench import POINT_KEYS, Bench


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
    study = f"e-{processes}"
    benchmark = made.benchmark(made.size["questions"])
    command = [
        *(sys.executable, "-m", "videopool", "-m", *words, "job=evaluate", "logger=none", "features=memory"),
        *("hydra/launcher=joblib", f"hydra.launcher.n_jobs={processes}"),
        *(f"results_dir={made.folder}", f"data_dir={made.folder}", f"study={study}"),
        *("benchmark=mvbench", f"benchmark.root={benchmark['root']}", f"benchmark.tasks={benchmark['tasks']}"),
        *(f"model.{name}={value}" for name, value in made.model.items() if value is not None),
        *(f"job.{key}={made.config.job[key]}" for key in POINT_KEYS),
    ]
    # What a multirun that this job may be part of keeps for itself is not the command's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIDEOPOOL_")}
    environment["OMP_NUM_THREADS"] = "1"
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no word from it"]
        raise ConfigError(f"job.multirun: the command ended with {done.returncode}: {lines[-1]}")
    begun, ended = _stamps(made.folder / study)
    return {
        "processes": processes,
        "points": len(ended),
        "seconds": seconds,
        "points_per_minute": 60 * len(ended) / seconds,
        "seconds_at_work": max(ended) - min(begun),
        "points_per_minute_at_work": 60 * len(ended) / (max(ended) - min(begun)),
    }


def _stamps(study: Path) -> tuple[list[float], list[float]]:
    """When points were claimed and when they were complete, by the clock of the file system."""
    folders = [path.parent for path in study.glob("*/metrics.json")]
    claimed = [(folder / "lock").stat().st_mtime for folder in folders]
    return claimed, [(folder / "metrics.json").stat().st_mtime for folder in folders]
