"""Keys: those a configuration may have, and what a mistyped one means.

A key is known if a shipped file of the chosen groups has it. Another one is accepted where something reads it: the
class of its group takes it as an argument, its parent is free by nature, or an interpolation names it. All others are
refused, whether they come from the command line, with Hydra's plus or without, or from the user's own YAML files.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from videopool.commandline.groups import Groups, content_of, keys_of
from videopool.commandline.signatures import parameters
from videopool.errors import did_you_mean
from videopool.paths import shipped

# Below these, names are the user's own or Hydra's.
FREE = (
    "benchmark.folders", "benchmark.task_names", "benchmark.groups", "benchmark.split_sizes", "training_data.sources",
    "hydra.sweeper.params", "hydra.job.env_set", "hydra.callbacks", "hydra.runtime", "hydra.overrides",
    "hydra.job_logging", "hydra.hydra_logging", "hydra.launcher.additional_parameters",
)  # fmt: skip
# Read by the program, besides the arguments of the group's class.
READ = {"pooling": {"stage"}, "judge": {"store"}}
HYDRAS = {"_target_", "_args_", "_convert_", "_partial_", "_recursive_"}
# Values that can be checked before anything is imported; the rooms that read them check them too.
VALUES = {
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
NOT_CHECKED = ("hydra", "trainer")  # their numbers may be words; their owners check them


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
    """Refuse keys that nothing reads, missing keys that something reads, and words for numbers.

    Returns the known keys with the values of their files.

    Args:
        config: the composition as plain mappings, interpolations unresolved.
        parts: the files that it was composed from.
        added: what was typed for keys added on the command line, by key.
        removed: keys deleted on the command line.

    Raises:
        ValueError: in one line, with a suggestion.
    """
    parts = list(parts)
    known = {key: value for part in parts if part.kind == "shipped" for key, value in part.values.items()}
    for part in parts:
        if part.kind == "study":  # what a shipped study adds for itself, and for its own job
            fresh = {key: value for key, value in part.values.items() if _head(key) not in known or _head(key) == "job"}
            known |= {key: value for key, value in fresh.items() if key not in known}
    for group in {_head(key) for part in parts if part.kind == "own" for key in part.values} - set(map(_head, known)):
        for _, path in Groups().choices(group):  # the user's own choice, without a class: it may say what others say
            content = {name: value for name, value in content_of(path).items() if name != "defaults"}
            known |= {group: {}, **dict(flat(content, group))}
    for key in removed:
        _check_removed(key, known, config)
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
    taken = _taken(node, path)
    for name, value in node.items():
        key = f"{path}.{name}" if path else str(name)
        fine = free or path in FREE or key in known or (bool(path) and taken is not None and name in taken)
        if not (fine or taken is None):
            yield key
        elif isinstance(value, Mapping):
            # Where shipped files have no mapping, what reads it knows its keys; but a class has its arguments.
            inner = "_target_" not in value and (path in FREE or not isinstance(known.get(key), Mapping))
            yield from _unknown(value, known, key, free=inner and key not in FREE)
        elif isinstance(value, list):
            for place, item in enumerate(value):
                if isinstance(item, Mapping) and "_target_" in item:
                    yield from _unknown(item, {}, f"{key}.{place}")


def _taken(node: Mapping[str, Any], path: str) -> frozenset[str] | set[str] | None:
    """Names that the class of a node takes; none without a class, and None for any."""
    target = node.get("_target_")
    if not isinstance(target, str) or path == "model" or "${" in target:  # a model's class gets the known keys only
        return frozenset()
    taken = parameters(target)
    return None if taken is None else taken | HYDRAS | READ.get(path, set())


def _check_removed(key: str, known: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    parent, _, name = key.rpartition(".")
    if key not in known or _head(key) == "hydra" or parent in FREE:
        return
    node = dict(flat(config)).get(parent, {})
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if target is None or name == "_target_" or name in READ.get(parent, ()) or name in (parameters(str(target)) or ()):
        raise UnknownKey(f"~{key}: {key} is read and cannot be left out; give it a value, {key}=...")


def check_values(config: Mapping[str, Any], known: Known) -> None:
    """Refuse a word where the file has a number or a switch, and names that are not among a key's few.

    Raises:
        ValueError: in one line, with the key.
    """
    values = dict(flat(config))
    for key, value in values.items():
        if not isinstance(value, str) or "${" in value or value == "???" or _head(key) in NOT_CHECKED:
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
        elif isinstance(usual, (int, float)) and not own and not _is_number(value):
            raise UnknownKey(f"{key}={value}: give a number")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
    target = node.get("_target_")
    node = {**dict.fromkeys(one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == parent), **node}
    taken = _taken(node, parent) or set()
    if name in taken and name not in node:
        return f"it is an argument of {target} that no file sets; add it with a plus, +{key}=..."
    meant = did_you_mean(name, {str(option) for option in {*node, *taken}} - HYDRAS - {name})
    chosen = str(_choice(config, parent) or "")
    others = [choice for choice in _choices_with(parent, name) if choice != chosen]
    if others and not meant:
        meant = f"; choose {parent}={', '.join(others[:4])}{' or another' if len(others) > 4 else ''}, which have it"
    elif not meant:
        names = [str(option) for option in node if option not in HYDRAS and option != name]
        shown = "hydra" if _head(parent) == "hydra" else "job"
        long = f"; videopool --cfg {shown} -p {parent} shows it"
        meant = f"; its keys: {', '.join(names)}" if len(names) <= 12 else long
    if target and not str(target).startswith(("videopool.", "pytorch_lightning.")):
        return f"{target} takes no {name}{meant}"
    return f"{f'{parent}={chosen}' if chosen else parent} has no {name}{meant}"


def _choice(config: Mapping[str, Any], group: str) -> object:
    return config.get("hydra", {}).get("runtime", {}).get("choices", {}).get(group)


def _read_somewhere(key: str, config: Mapping[str, Any]) -> bool:
    """Whether an interpolation names a key or one above it, in the composition or in a file that it may be made for."""
    wanted = re.compile(r"\$\{[^}]*(?<![\w.])\.*" + re.escape(key) + r"(?![\w])")
    sources = config.get("hydra", {}).get("runtime", {}).get("config_sources", [])
    folders = [shipped("conf"), *(Path(one["path"]) for one in sources if one.get("schema") == "file")]
    texts = (path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.rglob("*.yaml")))
    found = (value for value in dict(flat(config)).values() if isinstance(value, (str, list)))
    return any(wanted.search(str(value)) for value in found) or any(wanted.search(text) for text in texts)


def _choices_with(group: str, name: str) -> list[str]:
    """The shipped choices of a group whose own file has a key, those that build on others last."""
    found = [(choice, content_of(path)) for choice, path in Groups().choices(group) if name in content_of(path)]
    return [choice for choice, content in sorted(found, key=lambda one: "defaults" in one[1])]


@cache
def _jobs() -> dict[str, set[str]]:
    """The keys that each job's own file has, from the top."""
    groups = Groups()
    keys = {job: {key.name for key in keys_of(path, groups.package(path))} for job, path in groups.choices("job")}
    return {job: names - {"job", "job.name"} for job, names in keys.items()}
