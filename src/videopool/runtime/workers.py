"""Processes for work that may kill its process.

joblib's loky does not nest in a sweep by joblib (forked), or imports for seconds in which Ctrl-C kills it (spawned).
"""

import os
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from videopool.runtime.interrupts import ignore_interrupts
from videopool.runtime.ranks import START_METHOD

PATIENCE = 1.0  # seconds between two checks by an idle worker that its parent is alive


class _Worker:
    """A process that does one job after another, and the pipe to it."""

    def __init__(self, work: Callable[..., Any]) -> None:
        context: Any = get_context(START_METHOD)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that our end sees the process die


def in_processes(
    work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], count: int, stopped: Callable[[], bool]
) -> Generator[tuple[int, Any], None, None]:
    """Run work(*job) in `count` processes; yield (index of the job, result) as they finish, None if the process died.

    `work` is a module-level function, whose errors raise RuntimeError here. Once `stopped`, no further job starts.
    """
    waiting = iter(enumerate(jobs))
    idle: list[_Worker] = []
    busy: dict[Any, tuple[int, _Worker]] = {}  # by pipe
    try:
        while True:
            while len(busy) < count and not stopped() and (job := next(waiting, None)) is not None:
                worker = idle.pop() if idle else _Worker(work)
                busy[worker.pipe] = job[0], worker
                worker.pipe.send(job[1])
            if not busy:
                return
            for pipe in wait([*busy]):
                index, worker = busy.pop(pipe)
                result, error = None, ""
                try:
                    result, error = worker.pipe.recv()
                    idle.append(worker)
                except (EOFError, ConnectionError):
                    worker.process.join()
                if error:
                    raise RuntimeError(error)
                yield index, result
    finally:
        for worker in [*idle, *(worker for _, worker in busy.values())]:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _serve(work: Callable[..., Any], pipe: Connection, parent: int) -> None:
    """Do one job after another while the parent lives."""
    ignore_interrupts()
    while True:
        while not pipe.poll(PATIENCE):
            if os.getppid() != parent:
                return
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((work(*job), ""))
        except Exception:  # the parent raises it: a silent death would pass for a clip that kills its reader
            pipe.send((None, traceback.format_exc()))
