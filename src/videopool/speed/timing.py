"""Time works in turns, so that other work on the machine slows all of them down; bandwidth of poolings."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from scipy.stats import binom
from torch import Tensor

from videopool.config.build import build_pooling
from videopool.config.choices import catalogue, catalogued
from videopool.errors import UserError
from videopool.models.loading import DTYPES
from videopool.pooling import Pooling
from videopool.pooling.contract import random_context
from videopool.speed.bench import Bench, Line

SLOW = 2.0  # seconds; what takes longer runs once
T = TypeVar("T")


@contextmanager
def clock(seconds: MutableMapping[str, float], kind: str) -> Iterator[None]:
    """Add a block's wall-clock time, including the GPU's work, to seconds[kind]."""
    _synchronise()
    started = time.perf_counter()
    yield
    _synchronise()
    seconds[kind] = seconds.get(kind, 0.0) + time.perf_counter() - started


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Wall-clock seconds of a call, including the GPU's work, and its result."""
    seconds: dict[str, float] = {}
    with clock(seconds, "work"):
        result = work()
    return seconds["work"], result


def turn(items: Sequence[T], number: int) -> list[T]:
    """The items in the order of their n-th turn: rotated by n, and backwards after each full rotation."""
    place = number % len(items)
    rotated = [*items[place:], *items[:place]]
    return rotated[::-1] if number // len(items) % 2 else rotated


def interleaved(works: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, by work. Each round calls each work once; `warm_up` more rounds come first."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-warm_up, rounds):
        for name in turn(list(works), number):
            spent = timed(works[name])[0]  # without a reference to the result, which may be large
            if number >= 0:
                seconds[name].append(spent)
    return seconds


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """A confidence interval (at least 95 %) of the median: two of the values; the outermost of up to 5.

    The number of values below the median is binomial (Conover 1999, section 3.2).
    """
    ranked, count = sorted(values), len(values)
    rank = max(1, int(binom.ppf(0.025, count, 0.5)))
    return ranked[rank - 1], ranked[count - rank]


def medians(works: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of a call, by work; as interleaved(), but what takes more than SLOW seconds runs once."""
    first = {name: timed(work)[0] for name, work in works.items()}
    slow = {name: spent for name, spent in first.items() if spent > SLOW}
    others = {name: work for name, work in works.items() if name not in slow}
    found = interleaved(others, rounds, warm_up=0) if others else {}
    return {name: slow[name] if name in slow else statistics.median(found[name]) for name in works}


def bandwidths(poolings: Mapping[str, Pooling], grid: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Median rates of each pooling's forward pass and of a copy of the grid (`clone`), the first row; in turns.

    Bytes are the necessary ones: the grid read once and the result written once, so the copy moves twice the grid.
    tokens_per_second counts the grid's, and slower_than_copy is the copy's GB/s (1e9 bytes) over the pooling's. One
    that refuses this grid has an `error` instead of rates.
    """
    cells = grid[..., 0].numel()
    works: dict[str, Callable[[], Any]] = {"copy": grid.clone}
    written, failed = {"copy": (grid.numel(), cells)}, list[dict[str, Any]]()
    with torch.inference_mode():
        for name, pooling in poolings.items():
            context = random_context(pooling.needs, *grid.shape[1:])
            context = replace(context, **{need: getattr(context, need).to(grid) for need in pooling.needs})
            work = partial(pooling.to(grid), grid, context)
            try:
                tokens = work()
                if tokens.data_ptr() == grid.data_ptr():
                    raise ValueError("a view of the grid: nothing to do")
            except (ValueError, TypeError, RuntimeError) as error:
                failed.append({"name": name, "error": str(error).splitlines()[0]})
                continue
            works[name], written[name] = work, (tokens.numel(), tokens[..., 0].numel())
            del tokens
        seconds = medians(works, rounds)
    rows: list[dict[str, Any]] = []
    for name, spent in seconds.items():
        values, visual_tokens = written[name]
        rate = (grid.numel() + values) * grid.element_size() / spent / 1e9
        rows.append({
            "name": name, "seconds": spent, "gb_per_second": rate, "tokens_per_second": cells / spent,
            "visual_tokens": visual_tokens, "slower_than_copy": rows[0]["gb_per_second"] / rate if rows else 1.0,
        })  # fmt: skip
    return rows + failed


def operators(bench: Bench, line: Line) -> dict[str, Any]:
    """Part f: bandwidth of the poolings alone."""
    settings, step = bench.config.job.operators, line("poolings alone", 1)
    grid = torch.randn(list(settings.shape), generator=torch.Generator().manual_seed(0))
    grid = grid.to(settings.device, DTYPES[settings.dtype])
    poolings, failed = dict[str, Pooling](), list[dict[str, Any]]()
    config, names = bench.config.copy(), settings.names or catalogue()
    for name, config.pooling in zip(names, catalogued(names), strict=True):
        try:
            poolings[name] = build_pooling(config)
        except UserError as error:
            failed.append({"name": name, "error": str(error).splitlines()[0]})
    rows = bandwidths(poolings, grid, int(bench.config.job.repeats))
    step()
    described = {"dtype": settings.dtype, "device": settings.device, "grid_bytes": grid.nbytes}
    return {"grid": list(settings.shape), **described, "rows": rows + failed}
