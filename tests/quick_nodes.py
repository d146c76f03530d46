"""OmegaConf's nodes in about half the time, and the same: a quarter of all that tests compute is done by them.

Nodes are made and copied without what comes to nothing, and common values are told apart by their type.
tests/test_composing.py compares with OmegaConf's own. The program has none of this.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import hydra.version
from omegaconf import AnyNode, DictConfig, ListConfig, _utils, base, basecontainer, dictconfig
from omegaconf.base import Box, ContainerMetadata, Metadata

Memo = dict[int, Any]
VALUES = frozenset((str, int, float, bool, type(None)))
NODES = frozenset((AnyNode, DictConfig, ListConfig))
PLAIN = VALUES | NODES | {dict, list, tuple}  # no instances of what OmegaConf calls structured


def copied_metadata(self: Any, memo: Memo) -> Any:
    new = object.__new__(type(self))
    new.__dict__.update(self.__dict__)
    new.flags = None if self.flags is None else dict(self.flags)
    new.resolver_cache = deepcopy(self.resolver_cache, memo) if self.resolver_cache else defaultdict(dict)
    return new


def copied_value(self: Any, memo: Memo) -> Any:
    new = object.__new__(AnyNode)
    new.__dict__.update(self.__dict__, _metadata=copied_metadata(self._metadata, memo), _flags_cache=None)
    return new


def copied_container(self: Any, memo: Memo) -> Any:
    own = self.__dict__
    new, content, flags = object.__new__(type(self)), own["_content"], own["_flags_cache"]

    def copied(child: Any) -> Any:
        kept, child.__dict__["_parent"] = child.__dict__["_parent"], None
        try:
            other = deepcopy(child, memo)
        finally:
            child.__dict__["_parent"] = kept
        other.__dict__["_parent"] = new
        return other

    if isinstance(content, dict):
        content = {key: copied(child) for key, child in content.items()}
    elif isinstance(content, list):
        content = [copied(child) for child in content]
    new.__dict__.update(
        _metadata=copied_metadata(own["_metadata"], memo),
        _parent=own["_parent"],
        _flags_cache=None if flags is None else dict(flags),
        _content=content,
    )
    return new


def made_value(self: Any, value: Any = None, key: Any = None, parent: Any = None, flags: Any = None) -> None:
    plain = type(value) in VALUES and not (type(value) is str and (value == "???" or "${" in value))
    if not plain or (parent is not None and parent._get_flag("convert") is False):
        return make_value(self, value, key, parent, flags)
    metadata = Metadata(ref_type=Any, object_type=None, optional=True, key=key, flags=flags)
    self.__dict__.update(_metadata=metadata, _parent=parent, _flags_cache=None, _val=value)
    return None


def children(self: Any) -> Any:
    content = self.__dict__["_content"]
    return content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()


def re_parent(self: Any) -> None:
    for child in children(self):
        if type(child) is AnyNode:
            child.__dict__.update(_parent=self, _flags_cache=None)
        elif child is not None:
            child._set_parent(self)
            if isinstance(child, Box):
                child._re_parent()


def invalidate(self: Any) -> None:
    if self.__dict__["_flags_cache"] is not None:
        self.__dict__["_flags_cache"] = None
        for child in children(self):
            child._invalidate_flags_cache()


def by_type(told: Any) -> Any:
    """A function of a value that is false for plain ones."""
    return lambda value: type(value) not in PLAIN and value is not Any and told(value)


def held_by(value: Any) -> Any:
    """What a node holds, as its method _value() says; anything else itself."""
    return value.__dict__["_val" if type(value) is AnyNode else "_content"] if type(value) in NODES else value


def is_missing(value: Any) -> bool:
    held = held_by(value)
    return (type(held) is str or type(held) not in PLAIN) and is_missing_value(held)


def is_interpolation(value: Any, strict_interpolation_validation: bool = False) -> bool:
    held = held_by(value)
    return (type(held) is str or type(held) not in PLAIN) and is_interpolated(held, strict_interpolation_validation)


make_value, is_missing_value, is_interpolated = AnyNode.__init__, _utils._is_missing_value, _utils._is_interpolation
QUICK = {
    (Metadata, "__deepcopy__"): copied_metadata,
    (ContainerMetadata, "__deepcopy__"): copied_metadata,
    (AnyNode, "__init__"): made_value,
    (AnyNode, "__deepcopy__"): copied_value,
    **{
        (kind, name): method
        for kind in (DictConfig, ListConfig)
        for name, method in {
            "__deepcopy__": copied_container,
            "_re_parent": re_parent,
            "_invalidate_flags_cache": invalidate,
        }.items()
    },
    (_utils, "is_attr_class"): by_type(_utils.is_attr_class),
    (_utils, "is_dataclass"): by_type(_utils.is_dataclass),
    **{
        (module, name): method
        for module in (_utils, base, basecontainer, dictconfig)
        for name, method in {"_is_missing_value": is_missing, "_is_interpolation": is_interpolation}.items()
    },
    (hydra.version, "_get_version"): cache(hydra.version._get_version),
}
OWN = {(owner, name): vars(owner).get(name) for owner, name in QUICK}  # None: inherited, or there is none


def quick_nodes() -> None:
    _set(QUICK)


@contextmanager
def nodes_of_omegaconf() -> Iterator[None]:
    """Nodes are made as OmegaConf makes them, here."""
    before = {(owner, name): vars(owner).get(name) for owner, name in QUICK}
    _set(OWN)
    try:
        yield
    finally:
        _set(before)


def _set(methods: dict[tuple[Any, str], Any]) -> None:
    for (owner, name), method in methods.items():
        if method is not None:
            setattr(owner, name, method)
        elif name in vars(owner):
            delattr(owner, name)
