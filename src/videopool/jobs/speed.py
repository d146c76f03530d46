"""job=speed: the program's speed, and the gain of sharing work between points. A benchmark, not a test."""

import os
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import Rules, check, whole
from videopool.config.choices import catalogue
from videopool.config.errors import ConfigError
from videopool.figures import save_figure
from videopool.figures.speed import sweep_seconds
from videopool.models.configuration import DTYPES
from videopool.models.tower_changes import tower_changes
from videopool.results.manifest import git_state, hardware, now, peak_memory, versions
from videopool.results.point import write_json
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome
from videopool.runtime.progress import be_silent
from videopool.runtime.terminal import console
from videopool.speed.bench import bench, device_of
from videopool.speed.parts import measure
from videopool.speed.table import SECTIONS, missed, speed_table


def run(config: DictConfig) -> Outcome:
    """Measure the chosen parts; print one table, write speed.json and a figure."""
    letters, name = _check(config), f"speed of {config.job.size}"
    if not device_of(config):
        return Outcome(COMPLETE, name, "skipped: there is no GPU here (job.device=cuda)")
    be_silent()  # a thread that draws would take time from what is measured
    study, started = Path(config.results_dir) / config.study, time.perf_counter()
    path = study / "speed.json"
    content: dict[str, Any] = {
        "size": config.job.size,
        "started": now(),
        "machine": {**hardware(), "load_average": os.getloadavg()},  # load by others, before the measurement
        "versions": versions(),
        "git": git_state(),
    }
    with bench(config) as opened:
        for results in measure(opened, letters):  # after each part: a part that fails loses no earlier one
            content |= {"wall_seconds": time.perf_counter() - started, **peak_memory(), **results}
            write_json(path, content)
    files = [str(path)]
    if "sweep" in content:
        files += save_figure(sweep_seconds(content["sweep"]["seconds_by_kind"]), study / "figures" / "speed")
    console().print(speed_table(content))
    message, wrong = f"wrote {', '.join(files)}", missed(content)
    if not config.job.strict or not wrong:
        return Outcome(COMPLETE, name, message, str(study))
    return Outcome(FAILED, name, f"{len(wrong)} targets are not met ({'; '.join(wrong)}); {message}", str(study))


def _check(config: DictConfig) -> list[str]:
    """Letters of the parts asked for. Raises ConfigError for errors that would appear after minutes of measuring."""
    if "base_url" in config.model:
        raise ConfigError("model=api: job=speed measures this machine; choose another model")
    if config.trainer.devices != 1:
        raise ConfigError("trainer.devices: job=speed measures one device; say trainer.devices=1")
    if tower_changes(config.model).identity:
        raise ConfigError("model.tower: job=speed measures models as they stand; leave it out")
    job, names = config.job, {name: letter for letter, (name, _) in SECTIONS.items()}
    rules: Rules = {
        tuple(map(str, job.sizes)): ["job.size"], tuple(DTYPES): ["job.operators.dtype"], bool: ["job.strict"],
        whole(1): ["job.repeats", "job.training.loop_rounds"], whole(2): ["job.training.lone_steps"],
    }  # fmt: skip
    check(config, rules)
    parts = job.sizes[job.size].parts if job.parts is None else job.parts
    letters = {names.get(str(part), str(part)) for part in parts}
    if not letters or not letters <= SECTIONS.keys():
        raise ConfigError(f"job.parts={list(parts)}: choose from {', '.join(names)}")
    known = catalogue()
    if unknown := [str(name) for name in job.operators.names or [] if name not in known]:
        raise ConfigError(f"job.operators.names: there is no pooling {unknown[0]}; choose from {', '.join(known)}")
    return sorted(letters)
