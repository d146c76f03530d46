"""Code of the user's own that a configuration names: its source is part of what determines the numbers."""

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

OURS = __name__.partition(".")[0]
GETTERS = ("hydra.utils.get_class", "hydra.utils.get_method", "hydra.utils.get_object")
# Whose versions every manifest has, and this package itself.
KNOWN = (OURS, "torch", "pytorch_lightning", "transformers", "hydra", "builtins")


def own_code(config: DictConfig, groups: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the source files of the user's own modules, by the module's name.

    They are those of every `_target_` in some groups of a configuration, and what these use of other modules of the
    user's. Of a package that is installed, the target's own module alone; of this package, none.

    Args:
        config: of the program; what its targets name has been imported.
        groups: dotted keys; those that it lacks are passed over.
    """
    found: dict[str, str] = {}
    nodes = (OmegaConf.select(config, group) for group in groups)
    targets = {target for node in nodes for target in _targets(node) if target.partition(".")[0] not in KNOWN}
    waiting = [module for target in targets for module in _modules_of(get_object(target))]
    while waiting:
        module = waiting.pop()
        path = getattr(module, "__file__", None)
        if path is None or module.__name__ in found or module.__name__.partition(".")[0] in KNOWN:
            continue
        found[module.__name__] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if _written_here(path):
            waiting += [other for other in _used(module) if _written_here(getattr(other, "__file__", None))]
    return found


def _targets(node: object) -> Iterator[str]:
    """All names of classes and functions in a node, however deep."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str):
            yield str(node["path"]) if target in GETTERS else target
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _modules_of(thing: Any) -> list[ModuleType]:
    """Where a class or function is written, and where what it inherits from is."""
    things = getattr(thing, "__mro__", (getattr(thing, "__func__", thing),))
    names = {getattr(one, "__module__", None) or type(one).__module__ for one in things}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


def _used(module: ModuleType) -> list[ModuleType]:
    """Modules that a module has imported, or imported something from."""
    values = list(vars(module).values())
    names = {getattr(value, "__module__", None) for value in values}
    packages = {module.__name__.rpartition(".")[0]}
    from_names = [sys.modules[name] for name in names | packages if isinstance(name, str) and name in sys.modules]
    return [value for value in values if isinstance(value, ModuleType)] + from_names


@cache
def _installed() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = {sysconfig.get_path(name) for name in names} | {p for p in sys.path if "site-packages" in p}
    return tuple(Path(path).resolve() for path in paths if path)


def _written_here(path: str | None) -> bool:
    """Whether a file is the user's: neither of this package, nor installed, nor of Python itself."""
    if path is None or not path.endswith(".py"):
        return False
    full = Path(path).resolve()
    return not any(full.is_relative_to(folder) for folder in (*_installed(), Path(__file__).parents[1]))
