"""job=speed: the program's speed, and the gain of sharing work between points. A benchmark, not a test."""

import os
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.figures import save_figure
from videopool.figures.speed import sweep_seconds
from videopool.results.manifest import git_state, hardware, now, peak_memory_bytes, versions
from videopool.results.point import write_json
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.terminal import console, progress_lines
from videopool.speed.bench import bench
from videopool.speed.run import check, measure
from videopool.speed.table import speed_table


def run(config: DictConfig) -> Outcome:
    """Measure the chosen parts; print one table, write speed.json and a figure."""
    letters = check(config)
    study, started = Path(config.results_dir) / config.study, time.perf_counter()
    path = study / "speed.json"
    content: dict[str, Any] = {
        "size": config.job.size,
        "started": now(),
        "machine": {**hardware(), "load_average": os.getloadavg()},  # load by others, before the measurement
        "versions": versions(),
        "git": git_state(),
    }
    with bench(config) as opened, progress_lines() as line:
        for results in measure(opened, letters, line):  # after each part: a part that fails loses no earlier one
            seconds, peak = time.perf_counter() - started, peak_memory_bytes()
            content |= {"wall_seconds": seconds, "peak_memory_bytes": peak, **results}
            write_json(path, content)
    files = [str(path)]
    if "sweep" in content:
        files += save_figure(sweep_seconds(content["sweep"]["seconds_by_kind"]), study / "figures" / "speed")
    console().print(speed_table(content))
    return Outcome(COMPLETE, f"speed of {config.job.size}", f"wrote {', '.join(files)}", str(study))
