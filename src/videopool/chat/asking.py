"""Many requests at once, each tried again after a while, and none after the user asked to stop."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from videopool.chat.errors import ChatError, RequestFailed

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
    """Results of tasks as they come, at most `concurrency` of them in the making.

    An attempt that fails is made again, `retries` times, after backoff * 2^n seconds (times a random number in
    0.5 .. 1.5, so that those that failed together do not come back together) or what the server asked for.

    Args:
        group: the configuration group that errors name.
        attempt: raises RequestFailed if there is no usable reply.
        stopped: asked now and then; once it is true, what is in hand is finished and nothing is begun.

    Raises:
        ChatError: from an attempt; or many tasks in a row have failed, so that the others would too.
    """
    over = threading.Event()

    def work(task: Task) -> Result | RequestFailed:
        for number in range(retries + 1):
            try:
                return attempt(task)
            except RequestFailed as error:
                if number == retries or not error.again or over.is_set():
                    return error
                doubled = min(MOST_BACKOFF, backoff * 2**number)
                if over.wait(max(error.wait, doubled * random.uniform(0.5, 1.5))):
                    return error
        raise AssertionError("unreachable")

    waiting, most, row = iter(tasks), max(LEAST_IN_A_ROW, 2 * concurrency), 0
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix=group)
    running: dict[Future[Result | RequestFailed], Task] = {}
    try:
        while True:
            while len(running) < concurrency and not over.is_set():
                if stopped():
                    over.set()
                    break
                try:
                    task = next(waiting)
                except StopIteration:
                    break
                running[pool.submit(work, task)] = task
            if not running:
                return
            for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                task, result = running.pop(future), future.result()
                row = row + 1 if isinstance(result, RequestFailed) else 0
                yield task, result
                if row >= most and not over.is_set():
                    raise ChatError(
                        f"{group}: no usable reply to {row} requests in a row, so it is given up ({result})"
                    )
            if stopped():
                over.set()
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)
