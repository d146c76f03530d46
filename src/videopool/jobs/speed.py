"""job=speed: how fast the program is, and how much faster sharing makes it."""

from omegaconf import DictConfig

from videopool.runtime.outcome import Outcome
from videopool.speed import run


def speed(config: DictConfig) -> Outcome:
    """Measure the parts asked for; print one table, write speed.json and a figure."""
    return run.speed(config)
