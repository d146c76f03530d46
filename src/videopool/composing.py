"""Composing: Hydra's private seams, in one file. No other file touches hydra._internal.

Hydra's sweeper composes every point twice, for its check and for its run, from files that it reads anew each time. One
composition takes 0.12 s, most of it for the choices of groups. So each point is composed once, and points with the
same choices share a composition: 32 points with 8 choices take 1.3 s in place of 7.6. A sweeper of our own could do
without the check, but would refuse a point only after it ran those before; errors of callbacks become warnings; a
ConfigSource sees neither overrides nor whole configurations. tests/test_composing.py fails when the seams move.
"""

import gc
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from videopool.runtime import sweep
from videopool.top_level import check_choices, check_top_level


def compose_once() -> None:
    """Compose the configuration of each point once, and read each file once."""
    compose, read = ConfigLoaderImpl.load_sweep_config, ConfigRepository.load_config
    points: dict[tuple[str, ...], Any] = {}
    choices: dict[tuple[str, ...], Any] = {}
    files: dict[tuple[str, ...], Any] = {}

    def load_point(self: Any, master_config: Any, sweep_overrides: Any) -> Any:
        key = tuple(sweep_overrides)
        if key in points:
            return points.pop(key)
        if not points:
            gc.freeze()  # libraries keep what they made at import; collecting it again and again takes a second
        parsed = OverridesParser.create().parse_overrides(sweep_overrides)
        values = [override for override in parsed if "." in override.key_or_group]
        if all(override.type is OverrideType.CHANGE and not override.is_hydra_override() for override in parsed):
            rest = tuple(str(override.input_line) for override in parsed if override not in values)
            if rest not in choices:
                choices[rest] = compose(self, master_config, list(rest))
            points[key] = _with_values(choices[rest], values, parsed)
        else:  # what adds or deletes keys depends on the order of all
            points[key] = compose(self, master_config, sweep_overrides)
        sweep.composed.append(points[key])
        return points[key]

    def load_file(self: Any, config_path: str) -> Any:
        key = (config_path, *(source.path for source in self.sources))
        if key not in files:
            files[key] = read(self, config_path)
        return deepcopy(files[key])  # composition takes its nodes as they are, and overrides write into them

    ConfigLoaderImpl.load_sweep_config = load_point  # type: ignore[method-assign]
    ConfigRepository.load_config = load_file  # type: ignore[method-assign]
    ConfigStore.__deepcopy__ = lambda self, _: self  # type: ignore[attr-defined]  # copied with each repository else


def _with_values(composed: DictConfig, values: list[Override], overrides: list[Override]) -> DictConfig:
    """A composition of group choices with the values that Hydra sets after it, and what it notes of all overrides."""
    config = deepcopy(composed)
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    words = config.hydra.job.config.override_dirname
    config.hydra.job.override_dirname = get_overrides_dirname(
        overrides, words.exclude_keys, words.item_sep, words.kv_sep
    )
    config.hydra.overrides.task = [override.input_line for override in overrides]
    return config


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
