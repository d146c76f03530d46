"""The user's own code that a configuration names: its source hashes are part of the fingerprint."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from videopool.errors import installed

GETTERS = ("hydra.utils.get_class", "hydra.utils.get_method", "hydra.utils.get_object")
# This package, and libraries whose versions stand in every manifest.
KNOWN = (__name__.partition(".")[0], "torch", "pytorch_lightning", "transformers", "hydra", "builtins")


def own_code(config: DictConfig, groups: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the source files of the user's own modules, by module name.

    These are the modules of every `_target_` in the groups (dotted keys, if there), which have been imported, and the
    user's modules that they import. Of an installed package, only the target's own module counts; of this one, none.
    """
    hashes: dict[str, str] = {}
    targets = {target for group in groups for target in _targets(OmegaConf.select(config, group))}
    waiting = [module for target in targets if _unknown(target) for module in _modules_of(get_object(target))]
    while waiting:
        module = waiting.pop()
        path = getattr(module, "__file__", None)
        if path is None or module.__name__ in hashes or not _unknown(module.__name__):
            continue
        hashes[module.__name__] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if _is_users(module):
            waiting += filter(_is_users, _imported(module))
    return hashes


def _unknown(name: str) -> bool:
    return name.partition(".")[0] not in KNOWN


def _targets(node: object) -> Iterator[str]:
    """Names of all classes and functions in a node, at any depth."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, dict):
        target = node.get("_target_")
        if isinstance(target, str):
            yield str(node["path"]) if target in GETTERS else target
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        yield from _targets(value)


def _modules_of(thing: Any) -> list[ModuleType]:
    """The modules of a class and its base classes, or of a function."""
    things = getattr(thing, "__mro__", (getattr(thing, "__func__", thing),))
    names = {getattr(each, "__module__", None) or type(each).__module__ for each in things}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


def _imported(module: ModuleType) -> list[ModuleType]:
    """Modules that a module imports, or imports names from, and its package."""
    values = list(vars(module).values())
    names = {getattr(value, "__module__", None) for value in values} | {module.__name__.rpartition(".")[0]}
    from_names = [sys.modules[name] for name in names if isinstance(name, str) and name in sys.modules]
    return [value for value in values if isinstance(value, ModuleType)] + from_names


def _is_users(module: ModuleType) -> bool:
    """Whether the user wrote a module: it is neither installed nor part of Python."""
    path = getattr(module, "__file__", None) or ""
    return path.endswith(".py") and not installed(path)
