"""Composing: Hydra's private seams, in one file. No other file touches hydra._internal.

Hydra's sweeper composes every point for its check and again for its run, from files that it reads anew each time;
once spares 0.1 s a point. A sweeper of our own could do without the check, but would refuse points only behind those
before them; errors of callbacks become warnings; a ConfigSource sees neither overrides nor whole configurations.
tests/test_composing.py fails when the seams move.
"""

import gc
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.errors import ConfigCompositionException

from videopool.top_level import check_choices, check_top_level


def compose_once() -> None:
    """Compose the configuration of each point once, and read each file once."""
    compose, read = ConfigLoaderImpl.load_sweep_config, ConfigRepository.load_config
    points: dict[tuple[str, ...], Any] = {}
    files: dict[tuple[str, ...], Any] = {}

    def load_point(self: Any, master_config: Any, sweep_overrides: Any) -> Any:
        key = tuple(sweep_overrides)
        if key in points:
            return points.pop(key)
        if not points:
            gc.freeze()  # what libraries made at their import stays; looking through it again and again takes a second
        points[key] = compose(self, master_config, sweep_overrides)
        return points[key]

    def load_file(self: Any, config_path: str) -> Any:
        key = (config_path, *(source.path for source in self.sources))
        if key not in files:
            files[key] = read(self, config_path)
        return deepcopy(files[key])  # composition takes its nodes as they are, and overrides write into them

    ConfigLoaderImpl.load_sweep_config = load_point  # type: ignore[method-assign]
    ConfigRepository.load_config = load_file  # type: ignore[method-assign]


def check_configurations() -> None:
    """Let Hydra refuse, before it makes folders, what no job can use."""
    whole, point = ConfigLoaderImpl.load_configuration, ConfigLoaderImpl.load_sweep_config

    def load(self: Any, config_name: Any, overrides: list[str], *words: Any, **more: Any) -> Any:
        try:
            check_choices(overrides, self.repository.get_group_options)
            config = whole(self, config_name, overrides, *words, **more)
            check_top_level(config)
        except ValueError as error:
            raise ConfigCompositionException(str(error)) from None
        return config

    def load_point(self: Any, master_config: Any, sweep_overrides: list[str]) -> Any:
        try:
            check_choices(sweep_overrides, self.repository.get_group_options)
        except ValueError as error:
            raise ConfigCompositionException(str(error)) from None
        return point(self, master_config, sweep_overrides)

    ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
    ConfigLoaderImpl.load_sweep_config = load_point  # type: ignore[method-assign]
