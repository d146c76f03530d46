"""How often the process of a point was killed in a multirun by joblib, counted in a file that outlives it."""

import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

STARTS = "VIDEOPOOL_STARTS"  # names the file where points of one command note their start and end
MOST_KILLS = 3  # of one point: joblib ends the points beside a killed one too


def mark(event: str) -> None:
    """Note that this point "began" or "ended"."""
    if STARTS in os.environ and _by_joblib():
        with open(os.environ[STARTS], "a", encoding="utf-8") as file:
            file.write(f"{event} {HydraConfig.get().job.num}\n")


def kills() -> int:
    """How often this point's process was killed in this command, once that is too often; 0 before."""
    if not _by_joblib():  # submitit's jobs are counted where they are submitted
        return 0
    path, number = Path(os.environ.get(STARTS, "")), HydraConfig.get().job.num
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    count = lines.count(f"began {number}") - lines.count(f"ended {number}")
    return count if count >= MOST_KILLS else 0


def forget() -> None:
    """Remove the file, and those whose names it begins."""
    path = Path(os.environ.pop(STARTS))
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _by_joblib() -> bool:
    return "joblib" in HydraConfig.get().launcher._target_
