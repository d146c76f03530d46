"""Several processes of one run: how they start, and which of them this is."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Named, because inside a joblib worker the default is loky's, which cannot start loader processes.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
SHARDING = ("fsdp", "deepspeed")  # begin the names of Lightning's strategies that cut up a model, in training
DEVICE = "VIDEOPOOL_DEVICE"  # set in a process that was started for a device: the device's number, from 1


def rank_of_process() -> int:
    """The number of this process in its run: 0 for the first, which starts those of devices, and for the only one."""
    return int(os.environ.get(DEVICE, "0"))


def on_cpu(config: "DictConfig") -> bool:
    """Whether the trainer computes without CUDA."""
    import torch

    return config.trainer.accelerator == "cpu" or not torch.cuda.is_available()


def start_method(config: "DictConfig") -> str:
    """How processes of devices start: as forks, unless CUDA, a notebook or trainer.strategy=ddp_spawn forbids it."""
    anew = "spawn" in str(config.trainer.get("strategy")) or hasattr(sys, "ps1") or not on_cpu(config)
    return "spawn" if anew else START_METHOD
