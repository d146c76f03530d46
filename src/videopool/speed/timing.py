"""Time works beside each other, in turns, so that other work on the machine slows all of them down."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from scipy.stats import binom

T = TypeVar("T")


def synchronise() -> None:
    """Wait for the GPU; a no-op if none is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def clock(seconds: MutableMapping[str, float], kind: str) -> Iterator[None]:
    """Add a block's wall-clock time, including the GPU's work, to seconds[kind]."""
    synchronise()
    started = time.perf_counter()
    yield
    synchronise()
    seconds[kind] = seconds.get(kind, 0.0) + time.perf_counter() - started


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Wall-clock seconds of a call, including the GPU's work, and its result."""
    seconds: dict[str, float] = {}
    with clock(seconds, "work"):
        result = work()
    return seconds["work"], result


def turn(names: Iterable[str], number: int) -> list[str]:
    """The names in the order of their n-th turn: rotated by n, and backwards after each full rotation."""
    order = list(names)
    place = number % len(order)
    rotated = order[place:] + order[:place]
    return rotated[::-1] if number // len(order) % 2 else rotated


def in_turn(works: Mapping[str, Callable[[], T]], number: int) -> dict[str, T]:
    """The results of works, called in the order of their n-th turn."""
    return {name: works[name]() for name in turn(works, number)}


def interleaved(works: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, by work. Each round calls each work once; `warm_up` more rounds come first."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-warm_up, rounds):
        for name in turn(works, number):
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


class Turns:
    """Threads, by name, that work one at a time, in turn."""

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting, self._changed = list(names), threading.Condition()

    @contextmanager
    def taking(self, name: str) -> Iterator[None]:
        """Wraps a thread's work: waits for its turn, and leaves the turns to the others at the end or on an error."""
        self._wait(name)
        try:
            yield
        finally:
            self._leave(name)

    def hand_over(self, name: str) -> None:
        """Give each of the others a turn, and wait for the next own one."""
        self._leave(name, rejoin=True)
        self._wait(name)

    def _leave(self, name: str, rejoin: bool = False) -> None:
        with self._changed:
            self._waiting.remove(name)
            self._waiting += [name] * rejoin
            self._changed.notify_all()

    def _wait(self, name: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == name)
