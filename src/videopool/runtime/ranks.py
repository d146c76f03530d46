"""Several processes of one run: how they start, and which of them this is."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Named, because inside a joblib worker the default is loky's, which cannot start loader processes.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set by launchers, and by Lightning for the processes it starts
# Set by Lightning in this process, for those that it starts.
SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE", "OMP_NUM_THREADS")


def rank_of_process() -> int:
    """The rank of this process; 0 for the first or only one."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), 0)


def strategy_of(config: "DictConfig") -> str:
    """Lightning's strategy for several devices; for "auto" a fork, which has the weights, unless CUDA forbids it."""
    import torch

    strategy = str(config.trainer.get("strategy", "auto"))
    if strategy != "auto":
        return strategy
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return "ddp_fork" if on_cpu and START_METHOD == "fork" else "ddp_spawn"


@contextmanager
def own_environment() -> Iterator[None]:
    """Restore the variables that Lightning sets for its processes, and no others, which other threads may use."""
    before = {name: os.environ.get(name) for name in SET_BY_LIGHTNING}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
