"""Time things beside each other, so that a machine that other work slows down slows down all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


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
    """The names in the order of their n-th turn: rotated by n, every other time backwards."""
    places = len(names)
    rotated = [names[(place + number) % places] for place in range(places)]
    return rotated[::-1] if number % 2 else rotated


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
