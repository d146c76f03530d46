"""job=evaluate: one point, from configuration to metrics."""

from omegaconf import DictConfig

from videopool.evaluation import run
from videopool.runtime.outcome import Outcome


def evaluate(config: DictConfig) -> Outcome:
    """Run one point, or go on with it, or find it finished."""
    return run.evaluate(config)
