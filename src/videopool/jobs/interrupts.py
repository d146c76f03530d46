"""Ctrl-C: finish what is in hand, then stop."""

import ctypes
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Becomes true once the user has pressed Ctrl-C; in the processes started from this one too."""

    def __init__(self) -> None:
        self._asked = multiprocessing.RawValue(ctypes.c_bool, False)  # no lock: set from a signal handler

    @property
    def asked(self) -> bool:
        return bool(self._asked.value)

    def ask(self) -> None:
        self._asked.value = True


@contextmanager
def ask_before_stopping() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C into a request; a second one interrupts at once."""
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

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)


def ignore_interrupts(_: int = 0) -> None:
    """For loader processes: the main process decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
