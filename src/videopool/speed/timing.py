"""Time works beside each other, in turns, so that other work on the machine slows all of them down."""

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from scipy.stats import binom

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
