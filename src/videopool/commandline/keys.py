"""Keys: those a configuration may have, and what a mistyped one means.

A key is known if a shipped file of the chosen groups has it. Another one is accepted where something reads it: the
class of its group takes it as an argument, its parent is free by nature, or an interpolation names it. All others are
refused, whether they come from the command line, with Hydra's plus or without, or from the user's own YAML files.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from videopool.commandline.groups import Groups, content_of, keys_of
from videopool.errors import did_you_mean

# Below these, names are the user's own or Hydra's.
FREE = (
    "benchmark.folders", "benchmark.task_names", "benchmark.groups", "benchmark.split_sizes", "training_data.sources",
    "hydra.sweeper.params", "hydra.job.env_set", "hydra.callbacks", "hydra.runtime", "hydra.overrides",
    "hydra.job_logging", "hydra.hydra_logging", "hydra.launcher.additional_parameters",
)  # fmt: skip
# Read by the program, besides the arguments of the group's class.
READ = {"pooling": {"stage"}, "judge": {"store"}, "features": {"frames_at_once"}}
HYDRAS = {"_target_", "_args_", "_convert_", "_partial_", "_recursive_"}
# Values that can be checked before anything is imported; the rooms that read them check them too.
VALUES = {
    "positions": ("contiguous", "original"),
    "layout": ("frames", "block"),
    "pooling.stage": ("projector", "encoder"),
    "benchmark.scoring": ("likelihood", "cloze", "generate"),
    "job.reader": ("pyav", "decord"),
    "job.export": ("last", "best"),
    "job.cells": ("colour", "norm"),
    "job.action": ("list", "verify", "prune"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.view": ("grid", "frames"),
    "features.dtype": ("float32", "bfloat16", "float16"),
    "judge.dtype": ("float32", "bfloat16", "float16"),
    "logger.mode": ("offline", "online"),
    "compat.scoring": ("strict", "pllava"),
}
NOT_CHECKED = ("hydra", "trainer", "model.frame_size")  # their numbers may be words; their owners check them


Known: TypeAlias = dict[str, Any]


class UnknownKey(ValueError):
    """A key that nothing reads, in one line."""


@dataclass
class Part:
    """One file of a composition: its keys, where they are in the whole, with their values."""

    file: str
    kind: str  # "shipped", "study" (a shipped experiment), "own"
    values: dict[str, Any] = field(default_factory=dict)


def flat(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings and lists; a mapping's own value is the mapping."""
    items = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        name = f"{path}.{key}" if path else str(key)
        yield name, value
        yield from flat(value, name)


def check_keys(config: Mapping[str, Any], parts: Iterable[Part], added: Mapping[str, str], removed: set[str]) -> Known:
    """The known keys with the values of their files.

    Raises UnknownKey, in one line with a suggestion, for keys that nothing reads, for missing ones that something
    reads, and for words in place of numbers.

    Args:
        config: the composition as plain mappings, interpolations unresolved.
        parts: the files that it was composed from.
        added: what was typed for keys added on the command line, by key.
        removed: keys deleted on the command line.
    """
    parts = list(parts)
    known = {key: value for part in parts if part.kind == "shipped" for key, value in part.values.items()}
    for part in parts:
        if part.kind == "study":  # what a shipped study adds for itself, and for its own job
            fresh = {key: value for key, value in part.values.items() if _head(key) not in known or _head(key) == "job"}
            known = fresh | known
    for group in {_head(key) for part in parts if part.kind == "own" for key in part.values} - set(map(_head, known)):
        for _, path in Groups().choices(group):  # the user's own choice, without a class: it may say what others say
            content = {name: value for name, value in content_of(path).items() if name != "defaults"}
            known |= {group: {}, **dict(flat(content, group))}
    for key in removed & set(known):
        parent, _, name = key.rpartition(".")
        taken = _taken(dict(flat(config)).get(parent, {}), parent)
        if _head(key) != "hydra" and parent not in FREE and taken is not None and (not taken or name in taken):
            raise UnknownKey(f"~{key}: {key} is read and cannot be left out; give it a value, {key}=...")
    for key in _unknown(config, known):
        typed = next((word for name, word in added.items() if name == key or key.startswith(f"{name}.")), None)
        if not typed and key.startswith("job.") and any(key in keys for keys in _jobs().values()):
            continue  # a study's settings for its own job, under another one
        if not _read_somewhere(key, config):
            where = typed or next((f"{part.file}: {key}" for part in parts if key in part.values), key)
            raise UnknownKey(f"{where}: {explain(key, config, known)}")
    check_values(config, known)
    return known


def _head(key: str) -> str:
    return key.partition(".")[0]


def _unknown(node: Mapping[str, Any], known: Mapping[str, Any], path: str = "", free: bool = False) -> Iterator[str]:
    """The topmost keys of a node that neither a shipped file has nor a class takes."""
    for name, value in node.items():
        key = f"{path}.{name}" if path else str(name)
        if not (free or path in FREE or key in known):
            taken = _taken(node, path)
            if taken is not None and name not in taken:
                yield key
                continue
        if isinstance(value, Mapping):
            # Where shipped files have no mapping, what reads it knows its keys; but a class has its arguments.
            inner = "_target_" not in value and (path in FREE or not isinstance(known.get(key), Mapping))
            yield from _unknown(value, known, key, free=inner and key not in FREE)
        elif isinstance(value, list):
            for place, item in enumerate(value):
                if isinstance(item, Mapping) and "_target_" in item:
                    yield from _unknown(item, known, f"{key}.{place}")


def _taken(node: Mapping[str, Any], path: str) -> frozenset[str] | None:
    """Names that the class of a node takes; none without a class, and None for any."""
    target = node.get("_target_")
    if not isinstance(target, str) or path == "model" or "${" in target:  # a model's class gets the known keys only
        return frozenset()
    taken = parameters(target)
    if taken is None and target.startswith("videopool."):  # it passes on what another choice of the group has
        taken = frozenset(name for _, file in Groups().choices(path) for name in content_of(file))
    return None if taken is None else taken | HYDRAS | READ.get(path, set())


@cache
def parameters(target: str) -> frozenset[str] | None:
    """Names that a class or function takes; None: any, or it cannot be imported, which is told when it is made."""
    from hydra.utils import get_object

    try:
        made = get_object(target)
        given = inspect.signature(made).parameters.values()
    except Exception:  # whatever a user's module raises at its import
        return None
    names = frozenset(one.name for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))
    passed = any(one.kind is one.VAR_KEYWORD for one in given)
    return None if passed and made.__init__.__qualname__ != "Module.__init__" else names  # PyTorch's takes none


def check_values(config: Mapping[str, Any], known: Known) -> None:
    """Raises UnknownKey for a word where the file has a number or a switch, and a name not among a key's few."""
    values = dict(flat(config))
    for key, value in values.items():
        named = not isinstance(value, str) or "${" in value or value == "???"
        if named or key in NOT_CHECKED or _head(key) in NOT_CHECKED:
            continue
        target = f"{key.rpartition('.')[0]}._target_"
        own = values.get(target) is not None and values.get(target) != known.get(target)
        usual = known.get(key)
        if key in VALUES and key in known and (not own or key in ("pooling.stage", "benchmark.scoring")):
            if value not in VALUES[key]:
                meant = did_you_mean(value, VALUES[key])
                raise UnknownKey(f"{key}={value!r}: choose one of {', '.join(VALUES[key])}{meant}")
        elif isinstance(usual, bool) and not own:
            raise UnknownKey(f"{key}={value}: say true or false")
        elif isinstance(usual, (int, float)) and not own:
            raise UnknownKey(f"{key}={value}: give a number")


def explain(key: str, config: Mapping[str, Any], known: Iterable[str] = ()) -> str:
    """What is wrong with a key that the composition lacks or nothing reads, and what was probably meant."""
    values = dict(flat(config))
    parent, _, name = key.rpartition(".")
    while parent and parent not in values:  # the topmost key that is not there
        parent, _, name = parent.rpartition(".")
    rest = key[len(parent) + 1 if parent else 0 :].partition(".")[2]
    node = values.get(parent) if parent else config
    if not isinstance(node, Mapping):
        return f"{parent} has one value and no keys"
    jobs = [job for job, keys in _jobs().items() if key in keys or (not parent and name in keys)]
    if jobs and jobs[0] != values.get("job.name"):
        return f"job={values.get('job.name')} has no {key}; it belongs to job={' and job='.join(jobs[:3])}"
    if not parent and name in Groups().names():
        return f"job={values.get('job.name')} has no group {name}; job=finetune has it"
    if not parent:
        meant = did_you_mean(name, ({str(option) for option in node} | set(Groups().names())) - {name})
        if meant and rest:
            meant = meant.replace("?", f".{rest}?")
        deeper = [one for one in values if one.endswith(f".{name}") and _head(one) not in ("hydra", name)]
        return f"nothing reads a key or group {name}{meant or (f'; did you mean {deeper[0]}?' if deeper else '')}"
    names = {*map(str, node), *(one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == parent)} - {name}
    target, meant = node.get("_target_"), did_you_mean(name, names - HYDRAS)
    if not meant:
        taken = _taken(node, parent) or frozenset()
        if name in taken and name not in node:
            return f"it is an argument of {target} that no file sets; add it with a plus, +{key}=..."
        meant = did_you_mean(name, taken - HYDRAS - {name})
    chosen = str(config["hydra"]["runtime"]["choices"].get(parent) or "")
    found = {choice: content_of(path) for choice, path in Groups().choices(parent) if choice != chosen}
    others = sorted((one for one in found if name in found[one]), key=lambda one: "defaults" in found[one])
    if others and not meant:
        meant = f"; choose {parent}={', '.join(others[:4])}{' or another' if len(others) > 4 else ''}, which have it"
    elif not meant:
        shown = "hydra" if _head(parent) == "hydra" else "job"
        listed = [str(one) for one in node if one not in HYDRAS and one != name]
        long = f"; videopool --cfg {shown} -p {parent} shows it"
        meant = f"; its keys: {', '.join(listed)}" if len(listed) <= 12 else long
    if target and not str(target).startswith(("videopool.", "pytorch_lightning.")):
        return f"{target} takes no {name}{meant}"
    return f"{f'{parent}={chosen}' if chosen else parent} has no {name}{meant}"


def _read_somewhere(key: str, config: Mapping[str, Any]) -> bool:
    """Whether an interpolation names a key or one above it, in the composition or in a file that it may be made for."""
    wanted = re.compile(r"\$\{[^}]*(?<![\w.])\.*" + re.escape(key) + r"(?![\w])")
    folders = [one["path"] for one in config["hydra"]["runtime"]["config_sources"] if one["schema"] == "file"]
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in Path(folder).rglob("*.yaml")]
    return any(map(wanted.search, [str(config), *texts]))


@cache
def _jobs() -> dict[str, set[str]]:
    """The keys that each job's own file has, from the top."""
    groups = Groups()
    keys = {job: {key.name for key in keys_of(path, groups.package(path))} for job, path in groups.choices("job")}
    return {job: names - {"job", "job.name"} for job, names in keys.items()}
