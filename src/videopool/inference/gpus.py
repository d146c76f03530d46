"""GPUs of one machine shared out among processes that work on points side by side: to each its own, while it lives."""

import os
import sys
import time
from functools import cache
from typing import IO, TYPE_CHECKING

from videopool.locks import claim
from videopool.runtime import log
from videopool.runtime.kills import STARTS

if TYPE_CHECKING:
    from omegaconf import DictConfig

GPUS = "VIDEOPOOL_GPUS"  # groups of GPUs, as in 0,1;2,3
VISIBLE = "CUDA_VISIBLE_DEVICES"
HERE = ("JoblibLauncher", "LocalLauncher")  # launchers whose processes run on this machine
PATIENCE = 1.0  # seconds between two looks for a free GPU


def share_gpus(config: "DictConfig") -> None:
    """Group the GPUs for a launcher's processes, trainer.devices for each. Ends the command if there are too few."""
    launcher, each = config.hydra.launcher, int(config.trainer.devices)
    if not str(launcher._target_).endswith(HERE) or config.trainer.accelerator == "cpu" or "base_url" in config.model:
        return
    import torch

    count = torch.cuda.device_count()
    names = (os.environ.get(VISIBLE) or ",".join(map(str, range(count)))).split(",")[:count]
    groups = [names[first : first + each] for first in range(0, count - each + 1, each)]
    jobs = launcher.get("n_jobs", 1)
    if count and not 1 <= jobs <= len(groups):
        most = f"{len(groups)} at most, with {count} GPU{'s' * (count > 1)} and trainer.devices={each} for a point"
        log.fail(f"videopool: hydra.launcher.n_jobs={jobs}: {most}; trainer.accelerator=cpu needs none")
        log.end(2)
        sys.exit(2)
    if groups:
        os.environ[GPUS] = ";".join(map(",".join, groups))


@cache
def take_gpus() -> IO[str] | None:
    """In a launcher's process, before CUDA starts: see a free group of GPUs alone. Waits while there is none."""
    groups = os.environ.get(GPUS, "").split(";")
    while GPUS in os.environ:
        for number, group in enumerate(groups):
            file = open(f"{os.environ[STARTS]}.gpu-{number}", "a")  # noqa: SIM115  # the lock ends with the process
            if claim(file.fileno()):
                os.environ[VISIBLE] = group
                return file
            file.close()
        time.sleep(PATIENCE)
    return None
