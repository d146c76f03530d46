"""The feature store, shared by the points of a process."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from videopool.config.build import build

_stores: dict[str, Any] = {}


def shared_store(config: DictConfig) -> Any:
    """The feature store, one in a process for all points with the same settings."""
    key = OmegaConf.to_yaml(config.features, resolve=True)
    if key not in _stores:
        _stores[key] = build(config, "features")
    return _stores[key]
