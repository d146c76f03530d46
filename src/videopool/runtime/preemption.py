"""In a job of submitit: SIGUSR2 or SIGUSR1 stops the work as Ctrl-C does, then the job is requeued."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from videopool.runtime.interrupts import LEAVING
from videopool.runtime.outcome import FAILED, Outcome


def leaving_when_asked(work: Callable[[], Outcome], label: str) -> Outcome:
    """Do the work of a point. Exits once the job is requeued; a job that came to its time limit too often has failed.

    submitit's own handler, which requeues it, would exit in the middle of a step.
    """
    handlers: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in LEAVING}
    requeue = next(filter(callable, handlers.values()), None)
    if requeue is None or threading.current_thread() is not threading.main_thread():
        return work()
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        interrupt = signal.getsignal(signal.SIGINT)
        (interrupt if callable(interrupt) else signal.default_int_handler)(number, frame)

    try:
        for number in LEAVING:
            signal.signal(number, ask)
        try:
            outcome = work()
        except KeyboardInterrupt:
            if not asked:
                raise
            outcome = Outcome(FAILED, label)
        if asked and outcome.status == FAILED:  # the signal may have ended a process that the work needs
            outcome.message = _leave(requeue)
        return outcome
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(requeue: Callable[..., object]) -> str:
    """Requeue the job and exit, or return why not."""
    for number in LEAVING:
        signal.signal(number, signal.SIG_IGN)
    try:
        requeue(signal.SIGUSR2, None)
    except RuntimeError as error:
        if "timed-out" not in str(error):
            raise
    return "its job came to its time limit too often; raise hydra.launcher.timeout_min or max_num_timeout"
