"""Processes for work that may kill its process."""

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from videopool.runtime.interrupts import ignore_interrupts
from videopool.runtime.ranks import START_METHOD

IDLE_SECONDS = 5.0  # after which a process without work ends: also where its parent was killed


def in_processes(
    work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], count: int, stopped: Callable[[], bool]
) -> Generator[tuple[int, Any], None, None]:
    """Run work(*job) in `count` processes; yield (index of the job, result) as they finish.

    The result is None if the process died. Each process has a pool of its own, so that it is clear whose job killed it.

    Args:
        work: a module-level function; its errors are raised here.
        stopped: asked before each job; once true, no further job starts.
    """
    waiting = iter(enumerate(jobs))
    idle = [_process() for _ in range(count)]
    busy: dict[Future[Any], tuple[int, ProcessPoolExecutor]] = {}
    try:
        while True:
            while idle and not stopped() and (job := next(waiting, None)) is not None:
                process = idle.pop()
                busy[process.submit(work, *job[1])] = job[0], process
            if not busy:
                return
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                index, process = busy.pop(future)
                try:
                    result = future.result()
                except BrokenExecutor:
                    result, process = None, _process()
                idle.append(process)
                yield index, result
    finally:
        for process in [*idle, *(process for _, process in busy.values())]:
            process.shutdown(kill_workers=True)


def _process() -> ProcessPoolExecutor:
    """A pool of one process, which starts with its first job."""
    context = multiprocessing.get_context(START_METHOD)
    return ProcessPoolExecutor(1, timeout=IDLE_SECONDS, context=context, initializer=ignore_interrupts)
