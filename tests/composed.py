"""The program's configuration from overrides, as Hydra composes it. Those with the same choices share a composition."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import omegaconf.base
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig

from videopool.app import register_experiments
from videopool.commandline.composing import compose_once, parse_once
from videopool.commandline.groups import Groups
from videopool.paths import shipped

# What parse_once(), compose_once() and check_configurations() set.
SEAMS = (
    (OverridesParser, "parse_rule"),
    (ConfigLoaderImpl, "load_configuration"),
    (ConfigLoaderImpl, "load_sweep_config"),
    (ConfigLoaderImpl, "_load_single_config"),
    (ConfigRepository, "load_config"),
    (defaults_list, "_create_interpolation_map"),
    (omegaconf.base, "parse"),
)


def seams() -> list[Any]:
    return [getattr(*seam) for seam in SEAMS]


@contextmanager
def seams_as(values: list[Any]) -> Iterator[None]:
    """The seams with these values, and what they were afterwards."""
    before = seams()
    for seam, value in zip(SEAMS, values, strict=True):
        setattr(*seam, value)
    try:
        yield
    finally:
        for seam, value in zip(SEAMS, before, strict=True):
            setattr(*seam, value)


@cache
def once() -> list[Any]:
    """The seams as in a multirun of the program: each file is read once for all that is composed here."""
    with seams_as(seams()):
        parse_once.__wrapped__()
        compose_once.__wrapped__()
        return seams()


@contextmanager
def opened() -> Iterator[None]:
    """As within Hydra's main: what a configuration names can be composed."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def composed(*overrides: str) -> DictConfig:
    """What `videopool <overrides>` evaluates, without Hydra's own settings.

    A composition takes 0.1 s, nearly all of it for choices of groups; values are set after it, by Hydra's own function.
    """
    with seams_as(once()):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [override for override in parsed if override.key_or_group not in groups()]
    choices = [override for override in parsed if override not in values]
    if any(override.type is not OverrideType.CHANGE for override in choices):
        return _composed(overrides)
    config = deepcopy(_of_choices(tuple(str(override.input_line) for override in choices)))
    try:
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
    except Exception:
        return _composed(overrides)  # for the error that a user sees
    return config


groups = cache(lambda: frozenset(Groups().names()))


@cache
def _of_choices(words: tuple[str, ...]) -> DictConfig:
    return _composed(words)


def _composed(words: tuple[str, ...]) -> DictConfig:
    register_experiments(shipped("experiments"))
    callers = GlobalHydra.instance().hydra
    try:
        with opened(), seams_as(once()):
            return compose("config", overrides=list(words))
    finally:
        GlobalHydra.instance().hydra = callers
