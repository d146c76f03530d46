"""The parts of job=speed: which are asked for, and measuring them one after another."""

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
from videopool.speed import parts
from videopool.speed.bench import Bench, Line
from videopool.speed.device import rates
from videopool.speed.sweep import Sweep
from videopool.speed.table import SECTIONS
from videopool.speed.training import training

ALONE = {"a": parts.one_point, "d": parts.prefix, "e": parts.processes, "f": parts.operators, "g": training}
TOGETHER = {"b": Sweep.sweep, "c": Sweep.floor}


def check(config: DictConfig) -> list[str]:
    """Letters of the parts asked for. Raises ConfigError for what would come to light after minutes of measuring."""
    if "base_url" in config.model:
        raise ConfigError("model=api: job=speed measures what is done on this machine; choose another model")
    job = config.job
    names = {name: letter for letter, (name, _) in SECTIONS.items()}
    asked = {names.get(str(part), str(part)) for part in job.parts}
    if not asked or not asked <= SECTIONS.keys():
        raise ConfigError(f"job.parts={list(job.parts)}: choose from {', '.join(names)}")
    for key in ("job.repeats", "job.training.loop_rounds"):
        number(config, key, 1, whole=True)
    known = catalogue()
    for name in job.operators.names or []:
        if name not in known:
            raise ConfigError(f"job.operators.names: there is no pooling {name}; choose from {', '.join(known)}")
    if job.operators.dtype not in DTYPES:
        raise ConfigError(f"job.operators.dtype={job.operators.dtype}: choose one of {', '.join(DTYPES)}")
    return [letter for letter in SECTIONS if letter in asked]


def measure(made: Bench, letters: list[str], line: Line) -> Iterator[dict[str, Any]]:
    """Measure; after each part all that was found so far: the model, the clips, and an entry a part."""
    size, shape = made.size, made.backbone.shape
    entries: dict[str, Any] = {}
    found: dict[str, Any] = {
        "model": {
            "name": size["name"],
            "dtype": size["dtype"],
            "device": str(made.backbone.device),
            "parameters": parameter_count(shape),
            "grid": [shape.height, shape.width],
            "tower": [shape.vision_layers_run, shape.tower_dim],
            "language_model": [shape.layers, shape.dim],
        },
        "clips": {name: size[name] for name in ("clips", "questions", "pixels", "hold")},
        "parts": entries,
    }
    if made.made is not None:
        found["rates"] = _wall(partial(rates, made.backbone, rounds=int(made.config.job.repeats), **size["rates"]))
        yield found
    for letter in letters:
        if letter in ALONE:
            entries[letter] = _wall(partial(ALONE[letter], made, line))
        elif letter not in entries:
            own = [other for other in letters if other in TOGETHER]
            sweep = Sweep(made, [SECTIONS[other][0] for other in own], line)
            sweep.run()
            found["sweep"] = sweep.about()
            entries |= {other: TOGETHER[other](sweep) for other in own}
        yield found


def _wall(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    started = time.perf_counter()
    found = work()
    return {**found, "wall_seconds": time.perf_counter() - started}
