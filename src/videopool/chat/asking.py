"""Many requests at once, with retries, until the user asks to stop."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from videopool.chat.endpoint import ChatError, RequestFailed

MOST_BACKOFF = 60.0  # seconds
LEAST_IN_A_ROW = 10  # failures after which a server is given up
POLL_SECONDS = 0.1

Task = TypeVar("Task")
Result = TypeVar("Result")


def ask_all(
    group: str,
    tasks: Iterable[Task],
    attempt: Callable[[Task], Result],
    concurrency: int,
    retries: int,
    backoff: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Task, Result | RequestFailed]]:
    """Results of tasks as they come, from at most `concurrency` threads.

    A failed attempt is repeated up to `retries` times: after backoff * 2^n seconds times a random number in 0.5 .. 1.5
    (which spreads attempts that failed together), or after the wait that the server asked for, if that is longer.

    Errors name `group`, a configuration group. `attempt` raises RequestFailed if there is no usable reply. `stopped` is
    polled; once it is true, running attempts end and no task begins.

    Raises ChatError of an attempt, or after so many failed tasks in a row that the others would fail too.
    """
    over = threading.Event()

    def work(task: Task) -> Result | RequestFailed:
        failures = 0
        while True:
            try:
                return attempt(task)
            except RequestFailed as error:
                pause = max(error.wait, min(MOST_BACKOFF, backoff * 2**failures) * random.uniform(0.5, 1.5))
                failures += 1
                if failures > retries or not error.again or over.wait(pause):
                    return error

    waiting, failed_in_a_row = iter(tasks), 0
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix=group)
    running: dict[Future[Result | RequestFailed], Task] = {}
    try:
        while True:
            if stopped():
                over.set()
            free = 0 if over.is_set() else concurrency - len(running)
            running |= {pool.submit(work, task): task for task in islice(waiting, free)}
            if not running:
                return
            for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                task, result = running.pop(future), future.result()
                failed_in_a_row = failed_in_a_row + 1 if isinstance(result, RequestFailed) else 0
                yield task, result
                if failed_in_a_row >= max(LEAST_IN_A_ROW, 2 * concurrency) and not over.is_set():
                    raise ChatError(
                        f"{group}: no usable reply to {failed_in_a_row} requests in a row, so it is given up ({result})"
                    )
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)
