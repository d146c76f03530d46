"""All parts of job=speed, measured one after the other."""

import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from videopool.errors import one_line
from videopool.models.cost import parameter_count
from videopool.models.shape import own_shape
from videopool.runtime import log
from videopool.speed.bench import Bench, Step
from videopool.speed.commands import processes
from videopool.speed.loaded import loaded, precision
from videopool.speed.meta import meta
from videopool.speed.points import one_point, prefix, sweep
from videopool.speed.rates import rates
from videopool.speed.timing import operators
from videopool.speed.training import steps_alone, training

ALONE = {
    "a": one_point, "d": prefix, "e": processes, "f": operators, "g": training, "h": rates, "i": loaded, "j": meta,
    "k": precision, "l": steps_alone,
}  # fmt: skip


def _begin(title: str, total: int) -> Step:
    """Begin a part. Returns the function that prints a line for each of its steps."""
    steps = count(1)
    return lambda: log.say(f"        {title}: {next(steps)} of {total}")


def measure(opened: Bench, letters: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Measure; after each part all results so far: the model, the clips, and an entry per part."""
    size, shape = opened.size, own_shape(opened.model)
    parts: dict[str, Any] = {}
    results: dict[str, Any] = {
        "model": {
            "name": size["name"], "dtype": size["dtype"], "device": opened.device,
            "parameters": parameter_count(shape), "grid": [shape.height, shape.width],
            "tower": [shape.vision_layers_run, shape.tower_dim], "language_model": [shape.layers, shape.dim],
        },
        "clips": {name: size[name] for name in ("clips", "per_clip", "pixels", "hold")},
        "parts": parts,
    }  # fmt: skip
    together = [letter for letter in letters if letter not in ALONE]
    for letter in letters:
        if letter in parts:
            continue  # measured with an earlier one
        started = time.perf_counter()
        try:
            if letter in ALONE:
                parts[letter] = ALONE[letter](opened, _begin)
            else:
                results["sweep"], entries = sweep(opened, _begin, together)
                parts |= entries
        except Exception as error:
            if not opened.config.job.strict:
                raise
            # As a target that is missed; the other parts go on.
            parts |= {one: {"failed": one_line(error)} for one in ([letter] if letter in ALONE else together)}
        for entry in parts.values():
            entry.setdefault("wall_seconds", time.perf_counter() - started)
        yield results
