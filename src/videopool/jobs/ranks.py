"""Which of several processes of one run this is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set by launchers, and by Lightning for the processes it starts


def rank_of_process() -> int:
    """0 for the first, and where there is one."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), 0)


@contextmanager
def own_environment() -> Iterator[None]:
    """Forget afterwards what Lightning tells the processes that it starts: the next run starts its own."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
