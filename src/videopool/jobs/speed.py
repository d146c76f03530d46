"""job=speed: the program's speed, and the gain of sharing work between points. A benchmark, not a test."""

import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import number
from videopool.config.choices import catalogue
from videopool.config.errors import ConfigError
from videopool.figures import save_figure
from videopool.figures.speed import sweep_seconds
from videopool.models.cost import parameter_count
from videopool.models.loading import DTYPES
from videopool.results.manifest import git_state, hardware, now, peak_memory_bytes, versions
from videopool.results.point import write_json
from videopool.runtime import log
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.progress import be_silent
from videopool.runtime.terminal import console
from videopool.speed.bench import Bench, Step, bench
from videopool.speed.commands import processes
from videopool.speed.points import one_point, prefix, sweep
from videopool.speed.table import SECTIONS, speed_table
from videopool.speed.timing import operators, rates
from videopool.speed.training import training

ALONE = {"a": one_point, "d": prefix, "e": processes, "f": operators, "g": training}


def run(config: DictConfig) -> Outcome:
    """Measure the chosen parts; print one table, write speed.json and a figure."""
    letters = _check(config)
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
        for results in _measure(opened, letters):  # after each part: a part that fails loses no earlier one
            seconds, peak = time.perf_counter() - started, peak_memory_bytes()
            content |= {"wall_seconds": seconds, "peak_memory_bytes": peak, **results}
            write_json(path, content)
    files = [str(path)]
    if "sweep" in content:
        files += save_figure(sweep_seconds(content["sweep"]["seconds_by_kind"]), study / "figures" / "speed")
    console().print(speed_table(content))
    return Outcome(COMPLETE, f"speed of {config.job.size}", f"wrote {', '.join(files)}", str(study))


def _check(config: DictConfig) -> list[str]:
    """Letters of the parts asked for. Raises ConfigError for errors that would appear after minutes of measuring."""
    if "base_url" in config.model:
        raise ConfigError("model=api: job=speed measures this machine; choose another model")
    if config.trainer.devices != 1:
        raise ConfigError("trainer.devices: job=speed measures one device; say trainer.devices=1")
    job, names = config.job, {name: letter for letter, (name, _) in SECTIONS.items()}
    letters = {names.get(str(part), str(part)) for part in job.parts}
    if not letters or not letters <= SECTIONS.keys():
        raise ConfigError(f"job.parts={list(job.parts)}: choose from {', '.join(names)}")
    for key in ("job.repeats", "job.training.loop_rounds"):
        number(config, key, 1, whole=True)
    known = catalogue()
    if unknown := [str(name) for name in job.operators.names or [] if name not in known]:
        raise ConfigError(f"job.operators.names: there is no pooling {unknown[0]}; choose from {', '.join(known)}")
    if job.operators.dtype not in DTYPES:
        raise ConfigError(f"job.operators.dtype={job.operators.dtype}: choose one of {', '.join(DTYPES)}")
    return sorted(letters)


def _begin(title: str, total: int) -> Step:
    """Begin a part. Returns the function that prints a line for each of its steps."""
    steps = count(1)
    return lambda: log.say(f"        {title}: {next(steps)} of {total}")


def _measure(opened: Bench, letters: list[str]) -> Iterator[dict[str, Any]]:
    """Measure; after each part all results so far: the model, the clips, and an entry per part."""
    size, shape = opened.size, opened.backbone.shape
    parts: dict[str, Any] = {}
    results: dict[str, Any] = {
        "model": {
            "name": size["name"], "dtype": size["dtype"], "device": str(opened.backbone.device),
            "parameters": parameter_count(shape), "grid": [shape.height, shape.width],
            "tower": [shape.vision_layers_run, shape.tower_dim], "language_model": [shape.layers, shape.dim],
        },
        "clips": {name: size[name] for name in ("clips", "questions", "pixels", "hold")},
        "parts": parts,
    }  # fmt: skip
    if opened.in_memory is not None:
        started = time.perf_counter()
        found = rates(opened.backbone, rounds=int(opened.config.job.repeats), **size["rates"])
        results["rates"] = {**found, "wall_seconds": time.perf_counter() - started}
        yield results
    for letter in letters:
        if letter in ALONE:
            started = time.perf_counter()
            parts[letter] = {**ALONE[letter](opened, _begin), "wall_seconds": time.perf_counter() - started}
        elif "sweep" not in results:
            results["sweep"], together = sweep(opened, _begin, [one for one in letters if one not in ALONE])
            parts |= together
        yield results
