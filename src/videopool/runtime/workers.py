"""Processes for work that may kill the process that does it."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from videopool.runtime.devices import START_METHOD
from videopool.runtime.interrupts import ignore_interrupts

PATIENCE = 1.0  # seconds between two looks at whether there is still someone to work for


@dataclass
class _Worker:
    """A process, the line to it, and the place of the job that it has; None if it has none."""

    process: BaseProcess
    line: Connection
    place: int | None = None


def in_processes(
    work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], count: int, stopped: Callable[[], bool]
) -> Generator[tuple[int, Any], None, None]:
    """Results of work(*job), as they come, each with its job's place; None where the process that had it died.

    Args:
        work: a function at the top of a module.
        jobs: its arguments.
        count: how many processes.
        stopped: asked before each job; once true, no further one is begun.

    Raises:
        RuntimeError: work raised an error.
    """
    left = iter(range(len(jobs)))
    workers: list[_Worker] = []
    try:
        while True:
            while not stopped() and len(busy := [w for w in workers if w.place is not None]) < count:
                if (place := next(left, None)) is None:
                    break
                worker = next((w for w in workers if w.place is None), None)
                if worker is None:
                    worker = _started(work)
                    workers.append(worker)
                worker.place = place
                worker.line.send(jobs[place])
            busy = [w for w in workers if w.place is not None]
            if not busy:
                return
            ready = wait([w.line for w in busy], timeout=PATIENCE)
            for worker in [w for w in busy if w.line in ready]:
                done, worker.place = worker.place, None
                try:
                    result, error = worker.line.recv()
                except (EOFError, ConnectionError):
                    workers.remove(worker)
                    worker.process.join()
                    result, error = None, ""
                if error:
                    raise RuntimeError(error)
                assert done is not None
                yield done, result
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.line.close()


def _started(work: Callable[..., Any]) -> _Worker:
    context: Any = multiprocessing.get_context(START_METHOD)
    line, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen here when the process dies
    return _Worker(process, line)


def _serve(work: Callable[..., Any], line: Connection, parent: int) -> None:
    """What a process does: one job after another, until there is nobody left to work for."""
    ignore_interrupts()
    while True:
        while not line.poll(PATIENCE):
            if os.getppid() != parent:
                return
        try:
            job = line.recv()
        except EOFError:
            return
        try:
            line.send((work(*job), ""))
        except Exception:  # any: the parent raises it, and a silent death would pass for a clip that kills its reader
            line.send((None, traceback.format_exc()))
