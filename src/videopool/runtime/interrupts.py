"""Ctrl-C, and a plain kill: finish what is in hand, then stop."""

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None
_handlers: list[object] = []  # those in force here


class StopRequest:
    """Becomes true once the user, or the cluster, has asked to stop; in the processes started from this one too."""

    def __init__(self) -> None:
        self._asked = multiprocessing.RawValue(ctypes.c_bool, False)  # no lock: set from a signal handler
        self._process = os.getpid()
        self._on_term: _Handler = signal.SIG_DFL

    @property
    def asked(self) -> bool:
        return bool(self._asked.value)

    def ask(self) -> None:
        self._asked.value = True

    def take_back(self) -> None:
        """Handle SIGTERM as before Lightning took it over, which would end a training within a step, and with 0."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_term if os.getpid() == self._process else signal.SIG_DFL)


@contextmanager
def ask_before_stopping() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one interrupts at once.

    SIGTERM is what `kill` sends, and a scheduler that wants its machine back. Where somebody else handles it, as
    submitit does in its jobs, that is left to them.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals reach the main thread only
        return

    pressed = 0  # in this process: a terminal sends each press to all of them

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            raise KeyboardInterrupt
        request.ask()

    asking = [signal.SIGINT]
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        asking.append(signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in asking}
    request._on_term = signal.getsignal(signal.SIGTERM)
    _handlers.append(on_signal)
    try:
        yield request
    finally:
        _handlers.remove(on_signal)
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts(_: int = 0) -> None:
    """For loader processes: the main process decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_loaders_at_exit() -> None:
    """In a process of several devices: end its loader processes with it, also where it ends by an error.

    They ignore SIGTERM, so multiprocessing, which sends them that at the end, would wait for them for ever.
    """
    Finalize(None, _kill_children, exitpriority=10)


def _kill_children() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def _end_when_told() -> None:
    """In a process just forked: SIGTERM ends it, as its parent relies on where one of several devices has failed."""
    if signal.getsignal(signal.SIGTERM) in _handlers:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_end_when_told)
