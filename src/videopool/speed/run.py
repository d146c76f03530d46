"""Check the parts of job=speed and measure them one after another."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import number
from videopool.config.choices import catalogue
from videopool.config.errors import ConfigError
from videopool.models.cost import parameter_count
from videopool.models.loading import DTYPES
from videopool.speed.bench import Bench, Line
from videopool.speed.commands import processes
from videopool.speed.points import one_point, prefix
from videopool.speed.rates import operators, rates
from videopool.speed.sweep import Sweep
from videopool.speed.table import SECTIONS
from videopool.speed.training import training

ALONE = {"a": one_point, "d": prefix, "e": processes, "f": operators, "g": training}
TOGETHER = {"b": Sweep.against_nothing_shared, "c": Sweep.against_floor}


def check(config: DictConfig) -> list[str]:
    """Letters of the parts asked for. Raises ConfigError for errors that would appear after minutes of measuring."""
    if "base_url" in config.model:
        raise ConfigError("model=api: job=speed measures this machine; choose another model")
    job, names = config.job, {name: letter for letter, (name, _) in SECTIONS.items()}
    letters = {names.get(str(part), str(part)) for part in job.parts}
    if not letters or not letters <= SECTIONS.keys():
        raise ConfigError(f"job.parts={list(job.parts)}: choose from {', '.join(names)}")
    for key in ("job.repeats", "job.training.loop_rounds"):
        number(config, key, 1, whole=True)
    known = catalogue()
    for name in job.operators.names or []:
        if name not in known:
            raise ConfigError(f"job.operators.names: there is no pooling {name}; choose from {', '.join(known)}")
    if job.operators.dtype not in DTYPES:
        raise ConfigError(f"job.operators.dtype={job.operators.dtype}: choose one of {', '.join(DTYPES)}")
    return sorted(letters)


def measure(bench: Bench, letters: list[str], line: Line) -> Iterator[dict[str, Any]]:
    """Measure; after each part all results so far: the model, the clips, and an entry per part."""
    size, shape = bench.size, bench.backbone.shape
    parts: dict[str, Any] = {}
    results: dict[str, Any] = {
        "model": {
            "name": size["name"], "dtype": size["dtype"], "device": str(bench.backbone.device),
            "parameters": parameter_count(shape), "grid": [shape.height, shape.width],
            "tower": [shape.vision_layers_run, shape.tower_dim], "language_model": [shape.layers, shape.dim],
        },
        "clips": {name: size[name] for name in ("clips", "questions", "pixels", "hold")},
        "parts": parts,
    }  # fmt: skip
    if bench.in_memory is not None:
        repeats = int(bench.config.job.repeats)
        results["rates"] = _wall(partial(rates, bench.backbone, rounds=repeats, **size["rates"]))
        yield results
    for letter in letters:
        if letter in ALONE:
            parts[letter] = _wall(partial(ALONE[letter], bench, line))
        elif letter not in parts:
            together = [other for other in letters if other in TOGETHER]
            sweep = Sweep(bench, together)
            sweep.run(line)
            results["sweep"] = sweep.facts()
            parts |= {other: TOGETHER[other](sweep) for other in together}
        yield results


def _wall(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    started = time.perf_counter()
    return {**work(), "wall_seconds": time.perf_counter() - started}
