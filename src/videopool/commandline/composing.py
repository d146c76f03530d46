"""Composing: Hydra's private seams, in one file. No other file touches hydra._internal.

Hydra's sweeper composes every point twice, for its check and for its run, from files that it reads anew each time. One
composition takes 0.25 s on a slow core, most of it for the choices of groups. So each point is composed once, points
with the same choices share a composition, files and overrides are read once, and Hydra makes no map of choices for
files that name none: 32 points with 8 choices take 1.4 s in place of 18. A sweeper of our own could do
without the check, but would refuse a point only after it ran those before; errors of callbacks become warnings; a
ConfigSource sees neither overrides nor whole configurations. tests/test_composing.py fails when the seams move.
"""

import gc
import re
from collections.abc import Callable
from copy import copy, deepcopy
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import omegaconf.base
import yaml
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from videopool.commandline.groups import Groups
from videopool.commandline.keys import Known, Part, check_keys, check_values, explain, flat
from videopool.commandline.top_level import check_choices, check_top_level, expand_home
from videopool.errors import did_you_mean
from videopool.runtime import sweep


class LaterRead(ConfigNode):
    """A file of Hydra's store, read when it is chosen; reading all studies takes a fifth of a second.

    `node` is its path until then.
    """

    @property
    def node(self) -> Any:
        held = self.__dict__["node"]
        return OmegaConf.load(held) if isinstance(held, Path) else held

    @node.setter
    def node(self, node: Any) -> None:
        self.__dict__["node"] = node


@cache
def parse_once() -> None:
    """Read each override once: a tenth of a second for twenty, which Hydra reads three times."""
    parse = OverridesParser.parse_rule
    held: dict[tuple[str, str], Any] = {}

    def parse_rule(self: Any, text: str, rule: str) -> Any:
        if (text, rule) not in held:
            held[text, rule] = parse(self, text, rule)
        return copy(held[text, rule])  # parsers write themselves into it

    OverridesParser.parse_rule = parse_rule  # type: ignore[method-assign, assignment]


@cache
def compose_once() -> None:
    """Compose the configuration of each point once, and read each file once."""
    compose, read = ConfigLoaderImpl.load_sweep_config, ConfigRepository.load_config
    embed, interpolate = ConfigLoaderImpl._load_single_config, defaults_list._create_interpolation_map
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
        return files[key]

    def load_one(self: Any, default: Any, repo: Any) -> Any:
        result = embed(self, default, repo)
        if result.config is repo.load_config(default.config_path).config:  # which a package would have copied
            result = copy(result)
            result.config = deepcopy(result.config)  # composition takes its nodes as they are, and overrides write
        return result

    def choices_for(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        """What defaults may name of other choices; made for those that do."""
        named = any(default.is_interpolation() for default in defaults)
        return interpolate(overrides, defaults, self_added) if named else None

    ConfigLoaderImpl.load_sweep_config = load_point  # type: ignore[method-assign]
    ConfigRepository.load_config = load_file  # type: ignore[method-assign]
    ConfigLoaderImpl._load_single_config = load_one  # type: ignore[method-assign]
    defaults_list._create_interpolation_map = choices_for  # type: ignore[assignment]
    omegaconf.base.parse = cache(omegaconf.base.parse)
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


@cache
def check_configurations() -> None:
    """Let Hydra refuse, before it makes folders, what no job can use; in one line, with what was probably meant.

    An own experiment needs no line `# @package _global_`, and `~` in paths is the user's home.
    """
    whole, point = ConfigLoaderImpl.load_configuration, ConfigLoaderImpl.load_sweep_config
    one, read = ConfigLoaderImpl._load_single_config, ConfigRepository.load_config
    parts: list[Part] = []
    known: dict[str, Known] = {}  # keys by the choices of groups
    asked: dict[tuple[Any, ...], Any] = {}  # what was composed only to see whether it says a mode; Hydra then says one

    def checked(self: Any, overrides: list[str], compose: Callable[[list[str]], Any], check: Callable[..., Any]) -> Any:
        parsed, options = OverridesParser.create().parse_overrides(overrides), self.repository.get_group_options
        try:
            check_choices(parsed, options)
            try:
                config = compose(overrides)
            except HydraException as error:
                raise _meant(error, parsed, options, compose) from None
            check(config, parsed)
        except ValueError as error:
            raise ConfigCompositionException(str(error)) from None
        expand_home(config)
        return config

    def check_whole(config: DictConfig, parsed: list[Override]) -> None:
        added = {word.key_or_group: str(word.input_line) for word in parsed if word.is_add() or word.is_force_add()}
        removed = {word.key_or_group for word in parsed if word.is_delete()}
        known[str(config.hydra.runtime.choices)] = check_keys(_plain(config), parts, added, removed)
        check_top_level(config)
        launcher = config.hydra.runtime.choices.get("hydra/launcher")
        if config.hydra.mode == RunMode.RUN and launcher != "basic":
            raise ValueError(f"hydra/launcher={launcher} starts the points of a sweep; add -m, for one point too")

    def check_point(config: DictConfig, parsed: list[Override]) -> None:
        check_values(_plain(config), known.get(str(config.hydra.runtime.choices), {}))

    def load(self: Any, config_name: Any, overrides: list[str], run_mode: RunMode, *words: Any, **more: Any) -> Any:
        def compose(own: list[str]) -> Any:
            parts.clear()
            return whole(self, config_name, own, run_mode, *words, **more)

        mode = f"hydra.mode={run_mode.name}"
        if overrides[-1:] == [mode] and (tuple(overrides[:-1]), config_name) in asked:
            config = asked.pop((tuple(overrides[:-1]), config_name))
            self.validate_sweep_overrides_legal(OverridesParser.create().parse_overrides(overrides), run_mode, True)
            config.hydra.mode = run_mode
            config.hydra.overrides.hydra.append(mode)
            return checked(self, overrides, lambda _: config, check_whole)
        config = checked(self, overrides, compose, check_whole)
        whole_anyway = "???" not in config.hydra.runtime.choices.values()  # which Hydra passes over when it only asks
        if more.get("validate_sweep_overrides") is False and config.hydra.mode is None and whole_anyway:
            asked[tuple(overrides), config_name] = config
        return config

    def load_point(self: Any, master_config: Any, sweep_overrides: list[str]) -> Any:
        return checked(self, sweep_overrides, lambda own: point(self, master_config, own), check_point)

    def load_one(self: Any, default: Any, repo: Any) -> Any:
        result = one(self, default, repo)
        study = default.config_path.startswith("experiment/") and result.provider != "command-line"
        kind = "own" if result.provider == "command-line" else "study" if study else "shipped"
        parts.append(Part(f"{default.config_path}.yaml", kind, dict(flat(_plain(result.config)))))
        return result

    def load_file(self: Any, config_path: str) -> Any:
        found = read(self, config_path)
        if found is not None and config_path.startswith(("experiment/", "view/")):
            found.header["package"] = found.header["package"] or "_global_"
        return found

    ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
    ConfigLoaderImpl.load_sweep_config = load_point  # type: ignore[method-assign]
    ConfigLoaderImpl._load_single_config = load_one  # type: ignore[method-assign]
    ConfigRepository.load_config = load_file  # type: ignore[method-assign]


def _meant(error: HydraException, parsed: list[Override], options: Any, compose: Any) -> Exception:
    """A value that Hydra cannot set, as an error that says what was meant; any other error as it is."""
    if (key := re.match(r"Could not override '([^'@]+)'\.\n", str(error))) is None:
        return error
    own = [word for word in parsed if options(word.key_or_group) or word.key_or_group.endswith("._target_")]
    base = _plain(compose([word.input_line for word in own]))
    typed = next(word.input_line for word in parsed if word.key_or_group == key[1])
    return ValueError(f"{typed}: {explain(key[1], base)}")


def in_one_line(error: BaseException) -> str:
    """What Hydra and OmegaConf say, without search paths, links and advice that is meant for their own files."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    lines: dict[str, None] = {}
    cause: BaseException | None = error
    while cause is not None:
        lines |= dict.fromkeys(line.strip() for line in str(cause).splitlines() if line.strip())
        cause = cause.__cause__
    text = list(lines)
    first = text[0] if text else type(error).__name__
    if found := re.match(r"(?:In '(.*)': )?Could not find '(.+)/([^/]+)'", first):
        own = f"{found[1]}.yaml: " if found[1] and found[1] != "config" else ""
        return f"{own}there is no {found[2]} {found[3]}{did_you_mean(found[3], text[2:])}"
    if found := re.match(r"In '(.*)': Could not override '(.*)'\. No match in the defaults list", first):
        groups = Groups().names()
        reason = "the chosen job does not use this group" if found[2] in groups else "there is no such group"
        return f"{found[1]}.yaml: cannot override {found[2]}: {reason}{did_you_mean(found[2], groups)}"
    advice = re.compile(r"See https|To append|full_key|object_type|Config search")
    return " ".join(takewhile(lambda line: not advice.match(line), text))


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False)
