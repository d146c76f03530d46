"""Choices of Hydra's groups: the chosen ones, and those of the group `pooling`."""

import re
import shlex
from collections.abc import Sequence

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.config.errors import ConfigError
from videopool.paths import shipped


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


def catalogued(names: Sequence[str]) -> list[DictConfig]:
    """Choices of the group `pooling` with the settings of their files, in one composition."""
    overrides = [f"+pooling@catalogued.n{number}={name}" for number, name in enumerate(names)]
    return list(compose("config", overrides=overrides).catalogued.values()) if names else []


def with_poolings(config: DictConfig, names: Sequence[str]) -> list[DictConfig]:
    """Copies of the configuration with other choices of the group `pooling`. Raises ConfigError for no such choice."""
    for name in names:
        if name not in catalogue():
            raise ConfigError(f"job.poolings: there is no {name} in conf/pooling; there are {', '.join(catalogue())}")
    copies = [config.copy() for _ in names]
    for each, pooling in zip(copies, catalogued(names), strict=True):
        each.pooling = pooling
    return copies
