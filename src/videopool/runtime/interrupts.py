"""Ctrl-C, SIGTERM and SIGHUP: finish the work in progress, then stop."""

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP)  # of `kill` or a scheduler; of a terminal that is closed
LEAVING = (signal.SIGUSR1, signal.SIGUSR2)  # of a scheduler that needs the node, or before a time limit
_handlers: list[object] = []  # our handlers in force


def stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP stop the program as Ctrl-C does, wherever it is; what `nohup` ignores stays ignored."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


class StopRequest:
    """Whether the user or the cluster has asked to stop; shared with processes that this one starts."""

    def __init__(self) -> None:
        self._asked = multiprocessing.RawValue(ctypes.c_bool, False)  # no lock: set from a signal handler
        self._process = os.getpid()
        self._on_term: Any = signal.SIG_DFL

    @property
    def asked(self) -> bool:
        return bool(self._asked.value)

    def ask(self) -> None:
        self._asked.value = True

    def take_back(self) -> None:
        """Restore our SIGTERM handler. Lightning's own exits in the middle of a step, with exit code 0."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_term if os.getpid() == self._process else signal.SIG_IGN)

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is spawned, where the handler is not needed."""
        return {**self.__dict__, "_on_term": None}


@contextmanager
def ask_before_stopping() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request; a second interrupts at once, unless it is a SIGHUP.

    A terminal that closes sends several of those, as its shell does too. Handlers of others, as submitit's, stay.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals reach the main thread only
        return
    pressed = 0  # in this process: a terminal sends each press to all of them

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += number != signal.SIGHUP
        if pressed > 1:
            raise KeyboardInterrupt
        request.ask()

    ours = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [signal.SIGINT, *(number for number in ENDING if signal.getsignal(number) in ours)]
    before = {number: signal.signal(number, on_signal) for number in numbers}
    request._on_term = signal.getsignal(signal.SIGTERM)
    _handlers.append(on_signal)
    try:
        yield request
    finally:
        _handlers.remove(on_signal)
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts(_: int = 0) -> None:
    """For worker processes: the main process decides when to stop."""
    for number in (signal.SIGINT, *ENDING, *LEAVING):
        signal.signal(number, signal.SIG_IGN)


def end_loaders_at_exit() -> None:
    """In one of several device processes: kill its loaders at its end, as they ignore multiprocessing's SIGTERM."""

    def kill_children() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise for each killed loader
        for child in multiprocessing.active_children():
            child.kill()

    Finalize(None, kill_children, exitpriority=10)


def _after_fork() -> None:
    """SIGTERM ends the child; its parent relies on this where one of several devices fails. No child leaves alone."""
    for number in LEAVING:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)
    for number in ENDING:
        handler = signal.getsignal(number)
        if handler is signal.default_int_handler or (number == signal.SIGTERM and handler in _handlers):
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_after_fork)
