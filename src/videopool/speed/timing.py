"""Time things beside each other, so that a machine that other work slows down slows down all of them."""

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from scipy.stats import binom


def synchronise() -> None:
    """Wait until the GPU has done what it was asked to; nothing without one that is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of a call, the GPU's work included, and what it returned."""
    synchronise()
    started = time.perf_counter()
    result = work()
    synchronise()
    return time.perf_counter() - started, result


def turn(names: list[str], number: int) -> list[str]:
    """The names in the order of their n-th turn: rotated by n, and backwards once all rotations were taken."""
    places = len(names)
    rotated = [names[(place + number) % places] for place in range(places)]
    return rotated[::-1] if number // places % 2 else rotated


def interleaved(works: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each call of some pieces of work, round after round, each in one place of every round.

    Args:
        works: what to time.
        rounds: times that each is measured.
        warm_up: rounds before, which are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-warm_up, rounds):
        for name in turn(list(works), number):
            spent, result = timed(works[name])
            del result  # before the next one asks for memory
            if number >= 0:
                seconds[name].append(spent)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Two of the values between which the median lies with a probability of at least 95 %; the outermost of up to 5.

    How many values are below the median is binomial (Conover 1999, section 3.2).
    """
    ranked, count = sorted(values), len(values)
    rank = max(1, int(binom.ppf(0.025, count, 0.5)))
    return ranked[rank - 1], ranked[count - rank]


class Turns:
    """Threads that work in turn, one at a time, so that all of them meet the same pace of the machine.

    Args:
        names: of the threads; the first one begins.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting, self._changed = list(names), threading.Condition()

    @contextmanager
    def taking(self, name: str) -> Iterator[None]:
        """Around a thread's work: begins when it is its turn, and leaves the turns to the others, however it ends."""
        self._wait(name)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.remove(name)
                self._changed.notify_all()

    def hand_over(self, name: str) -> None:
        """Let each of the others have a turn; comes back when it is this one's again."""
        with self._changed:
            self._waiting.remove(name)
            self._waiting.append(name)
            self._changed.notify_all()
        self._wait(name)

    def _wait(self, name: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == name)
