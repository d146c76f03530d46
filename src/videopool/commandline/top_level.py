"""Top-level keys and groups: checked before a job runs."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from videopool.commandline.groups import Groups, content_of
from videopool.errors import did_you_mean

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

FOLDERS = ("study", "results_dir", "data_dir")
# Last parts of keys whose values are files or folders.
PATHS = (
    "study", "results_dir", "data_dir", "root", "annotations", "questions", "source", "checkpoint", "store", "path",
    "out", "clip", "submitit_folder",
)  # fmt: skip
LARGEST_SEED = 2**63 - 1
NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters; bytes that are no text


def check_top_level(config: "DictConfig") -> None:
    """Raises ValueError, in one line, for an impossible value. Makes text of folder names like 7."""
    for group, usual in Groups().defaults.items():
        if usual and "/" not in group and not hasattr(config.get(group), "keys"):
            choices = ", ".join(name for name, _ in Groups().choices(group) if "/" not in name)
            raise ValueError(f"{group}={_as_typed(config.get(group))}: choose one of {choices}")
    for key in FOLDERS:
        value = config.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = config[key] = str(value)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{key}={_as_typed(value)}: give the name of a folder")
        if NOT_IN_NAMES.search(value):
            raise ValueError(f"{key}={value!r}: no folder can have this name")
    study = config.study
    if "/" in study or study.strip() in (".", ".."):
        raise ValueError(
            f"study={study}: a study is one folder below results_dir; give a name without '/' "
            "(results_dir=... chooses where)"
        )
    seed, force = config.get("seed"), config.get("force")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed={_as_typed(seed)}: give a whole number of at least 0")
    if not isinstance(force, bool):
        raise ValueError(f"force={_as_typed(force)}: say true or false")


def _as_typed(value: object) -> str:
    """A value as on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_choices(overrides: Iterable["Override"], options: Callable[[str], Sequence[str]]) -> None:
    """Raises ValueError, with a suggestion, for what is no choice, as in frames=8, and for choices that are added.

    `options`: the choices of a group; empty for other keys.
    """
    defaults = Groups().defaults
    for override in overrides:
        group, typed = override.key_or_group, str(override.input_line)
        names = [name for name in options(group) if not name.startswith("_")]
        if not names or override.is_delete():
            continue
        added = override.is_add() or override.is_force_add()
        if added and defaults.get(group) and not str(override.package).startswith("catalogued."):  # by config.choices
            raise ValueError(f"{typed}: {group} has a choice already; change it without the plus, {typed.lstrip('+')}")
        for value in _values(override):
            text = _as_typed(value)
            if not isinstance(value, str):
                if value is None and not defaults.get(group):
                    continue
                usual = Groups().file(group, str(defaults.get(group)))
                numbers = [key for key, one in content_of(usual).items() if type(one) is int] if usual else []
                meant = f"; for a number in it say {group}.{numbers[0]}={text}" if numbers else ""
                meant = meant if type(value) in (int, float) else ""
                raise ValueError(f"{typed}: {group} is chosen by name, one of {', '.join(names)}{meant}")
            folder, _, name = value.rpartition("/")
            there = options(f"{group}/{folder}") if folder else names
            if "${" not in value and name not in there and name.removesuffix(".yaml") not in there:
                question = did_you_mean(value, [f"{folder}/{one}" if folder else one for one in there])
                listed = f"{', '.join(names)}" if len(names) <= 8 else f"videopool help {group} lists them"
                raise ValueError(f"{typed}: there is no {group} {value}{question or f'; {listed}'}")


def _values(override: "Override") -> list[Any]:
    """The chosen names, one or those of a sweep or list."""
    if override.is_sweep_override():
        values = list(override.value().list) if override.is_choice_sweep() else []  # type: ignore[union-attr]
    else:
        value = override.value()
        values = value if isinstance(value, list) else [value]
    return [getattr(value, "text", value) for value in values]


def expand_home(config: "DictConfig") -> None:
    """Write the user's home for `~` at the start of paths, which shells expand only after some keys."""
    for key, value in config.items_ex(resolve=False):
        if isinstance(value, str) and value.startswith("~") and str(key) in PATHS:
            config[key] = os.path.expanduser(value)
        elif hasattr(value, "items_ex") and not (value._is_none() or value._is_missing() or value._is_interpolation()):
            expand_home(value)
