"""How processes of several devices are started."""

import sys

import torch
from omegaconf import DictConfig

# Named, because inside a joblib worker the default is loky's, which cannot start loader processes.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


def strategy_of(config: DictConfig) -> str:
    """How several devices are started, where the configuration leaves it open.

    A fork inherits the weights; CUDA does not survive a fork, so there weights go through shared memory.
    """
    chosen = str(config.trainer.get("strategy", "auto"))
    if chosen != "auto":
        return chosen
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return "ddp_fork" if on_cpu and START_METHOD == "fork" else "ddp_spawn"
