"""Which of several processes of one run this is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set by launchers, and by Lightning for the processes it starts


def rank_of_process() -> int:
    """0 for the first, and where there is one."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), 0)


# What Lightning sets here, for the processes that it starts.
SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE", "OMP_NUM_THREADS")


@contextmanager
def own_environment() -> Iterator[None]:
    """Forget afterwards what Lightning tells the processes that it starts: the next run starts its own.

    Nothing else is touched, as other threads may read the environment meanwhile.
    """
    before = {name: os.environ.get(name) for name in SET_BY_LIGHTNING}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
