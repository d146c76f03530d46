"""Choices of Hydra's groups: the chosen ones, and those of the group `pooling`."""

import re
import shlex
from collections.abc import Sequence

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.config.build import build_pooling
from videopool.config.errors import ConfigError
from videopool.paths import shipped
from videopool.pooling import Pooling


def chosen(group: str) -> str | None:
    """The chosen option of a group; None if the program did not compose the configuration."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def command() -> str | None:
    """The command line of this point or job alone; None if the program did not compose the configuration."""
    if not HydraConfig.initialized():
        return None
    return shlex.join(["videopool", *HydraConfig.get().overrides.task])


def described(group: str, without: Sequence[str] = ()) -> str:
    """The choices of a group in one line, each with the first words of its file."""
    paths = [path for path in sorted((shipped("conf") / group).glob("*.yaml")) if path.stem not in without]
    heads = [re.split(r"[:;,.]\s| \(", path.read_text(encoding="utf-8").removeprefix("# "))[0] for path in paths]
    return ", ".join(f"{path.stem} ({head})" for path, head in zip(paths, heads, strict=True))


def catalogue() -> list[str]:
    """Names of the group `pooling`."""
    return sorted(path.stem for path in (shipped("conf") / "pooling").glob("*.yaml"))


def catalogued(name: str) -> Pooling:
    """A pooling of the group `pooling` with the settings of its file."""
    return build_pooling(compose("config", overrides=[f"pooling={name}"]))


def with_pooling(config: DictConfig, name: str) -> DictConfig:
    """A copy of the configuration with another choice of the group `pooling`. Raises ConfigError for no such choice."""
    if name not in catalogue():
        raise ConfigError(f"job.poolings: there is no {name} in conf/pooling; there are {', '.join(catalogue())}")
    changed = config.copy()
    changed.pooling = compose("config", overrides=[f"pooling={name}"]).pooling
    return changed
