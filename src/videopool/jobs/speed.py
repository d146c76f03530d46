"""job=speed: how fast the program is, and how much faster sharing makes it. A benchmark, not a test."""

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
    """Measure the parts asked for; print one table, write speed.json and a figure.

    Raises:
        ConfigError: no such part or size, or a size that needs a GPU where there is none.
        AssertionError: sharing changed a prediction.
    """
    letters = check(config)
    study, started = Path(config.results_dir) / config.study, time.perf_counter()
    # Looked up before anything is measured: what else the machine does.
    content: dict[str, Any] = {
        "size": config.job.size,
        "started": now(),
        "machine": {**hardware(), "load_average": os.getloadavg()},
        "versions": versions(),
        "git": git_state(),
    }
    with bench(config) as made, progress_lines() as line:
        for found in measure(made, letters, line):
            # After each part, so that one that fails does not take the others along.
            content |= {
                "wall_seconds": time.perf_counter() - started,
                "peak_memory_bytes": peak_memory_bytes(),
                **found,
            }
            write_json(study / "speed.json", content)
    files = [str(study / "speed.json")]
    if "sweep" in content:
        files += save_figure(sweep_seconds(content["sweep"]["seconds_by_kind"]), study / "figures" / "speed")
    console().print(speed_table(content))
    return Outcome(COMPLETE, f"speed of {config.job.size}", f"wrote {', '.join(files)}", str(study))
