"""The files of the group `pooling`, by name."""

from hydra import compose
from omegaconf import DictConfig

from videopool.config.build import build
from videopool.config.errors import ConfigError
from videopool.paths import shipped
from videopool.pooling import Pooling


def catalogue() -> list[str]:
    """Names of the group `pooling`."""
    return sorted(path.stem for path in (shipped("conf") / "pooling").glob("*.yaml"))


def catalogued(name: str) -> Pooling:
    """A pooling of the group `pooling` as its file has it."""
    return build(compose("config", overrides=[f"pooling={name}"]), "pooling", without=("stage",))


def with_pooling(config: DictConfig, name: str) -> DictConfig:
    """A configuration with another choice of the group `pooling`; what its file refers to stays the configuration's.

    Raises:
        ConfigError: there is no such choice.
    """
    if name not in catalogue():
        raise ConfigError(f"job.poolings: there is no {name} in conf/pooling; there are {', '.join(catalogue())}")
    changed = config.copy()
    changed.pooling = compose("config", overrides=[f"pooling={name}"]).pooling
    return changed
