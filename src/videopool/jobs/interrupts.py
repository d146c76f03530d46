"""Ctrl-C: finish what is in hand, then stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Becomes true once the user has pressed Ctrl-C."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def ask_before_stopping() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C into a request; a second one interrupts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals reach the main thread only
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)


def ignore_interrupts(_: int = 0) -> None:
    """For loader processes: the main process decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
