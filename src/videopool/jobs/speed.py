"""job=speed: how fast the program is, and how much faster sharing makes it."""

from omegaconf import DictConfig

from videopool.runtime.outcome import Outcome
from videopool.speed.run import speed


def run(config: DictConfig) -> Outcome:
    """Measure the parts asked for; print one table, write speed.json and a figure."""
    return speed(config)
