"""Groups: configuration files, their keys and comments.

The shipped ones, and those in the user's folder (`--config-dir`). Labels in first comments have a meaning: `Example:`
is a command that can be pasted, `Question:` is what a study asks.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from videopool.paths import PUBLISHED, shipped

LABEL = re.compile(r"([A-Z][a-z ]{2,20}):(?: |$)")


@dataclass(frozen=True)
class Key:
    """A key of a file: its dotted name, its value as the file has it, the comment beside it, and the file."""

    name: str
    value: str
    comment: str
    file: str


class Groups:
    """Groups, choices and keys of configuration folders: the shipped ones, and the user's (`--config-dir`)."""

    def __init__(self, *own: str | Path) -> None:
        self.folders = [shipped("conf"), *map(Path, own)]

    def hidden(self) -> Path | None:
        """A file of the user's that a shipped one of the same name hides."""
        for folder in self.folders[1:]:
            for path in sorted(folder.rglob("*.yaml")):
                name = path.relative_to(folder)
                if Groups().file(name.parent.as_posix(), name.stem):
                    return path
        return None

    def names(self) -> list[str]:
        """All groups."""
        found = {path.name for folder in self.folders for path in folder.glob("*/") if path.name != "hydra"}
        return sorted(found | {"experiment"})

    @property
    def defaults(self) -> dict[str, str | None]:
        """The choice of each group where none is made; None: no choice."""
        entries = content_of(shipped("conf") / "config.yaml")["defaults"]
        return {str(key): value for entry in entries if isinstance(entry, dict) for key, value in entry.items()}

    def file(self, group: str, choice: str) -> Path | None:
        """The file of a choice."""
        paths = [folder / group / f"{choice}.yaml" for folder in self.folders]
        if group == "experiment":
            paths.append(shipped("experiments") / f"{choice}.yaml")
        return next((path for path in paths if path.is_file()), None)

    def choices(self, group: str) -> list[tuple[str, Path]]:
        """The choices of a group, those in its folders last."""
        found: dict[str, Path] = {}
        for folder in [folder / group for folder in reversed(self.folders)]:
            found |= {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
        if group == "experiment":
            found |= {path.stem: path for path in shipped("experiments").glob("*.yaml") if path.name != PUBLISHED}
        names = sorted((name for name in found if not name.startswith("_")), key=lambda name: (name.count("/"), name))
        return [(name, found[name]) for name in names]

    def package(self, path: Path) -> str:
        """Where a file's keys are in the whole; empty: at its top."""
        group = self.group(path)
        whole = "# @package _global_" in path.read_text(encoding="utf-8") or group in (".", "experiment", "view")
        return "" if whole else group.replace("/", ".")

    def group(self, path: Path) -> str:
        """The group of a file, which may lie in a folder of its group; "." for config.yaml."""
        folders = [path.parent.relative_to(root).parts for root in self.folders if path.is_relative_to(root)]
        parts = folders[0] if folders else ("experiment",)
        return "/".join(parts[: 2 if parts[:1] == ("hydra",) else 1]) or "."

    def keys(self, path: Path, package: str | None = None) -> list[Key]:
        """All keys of a file, with those of the files that it builds on."""
        package = self.package(path) if package is None else package
        found: dict[str, Key] = {}
        entries = content_of(path).get("defaults") or []
        for entry in [*entries, *([] if "_self_" in entries else ["_self_"])]:
            if entry == "_self_":
                for key in keys_of(path, package):
                    if key.name.startswith("hydra") and not package.startswith("hydra"):
                        continue
                    above = found[key.name].comment if key.name in found else ""
                    found[key.name] = replace(key, comment=key.comment or above)
                continue
            own = isinstance(entry, str)  # a choice of the same group
            for name, choices in [(self.group(path), entry)] if own else entry.items():
                below = (entry if own else name).partition("@")[2]
                where = package if own or below else None
                where = f"{package}.{below}".strip(".") if below else where
                for choice in choices if isinstance(choices, list) else [choices]:
                    inner = self.file(name.partition("@")[0].lstrip("/"), str(choice).partition("@")[0])
                    found |= {key.name: key for key in self.keys(inner, where)} if inner else {}
        return list(found.values())


@cache
def content_of(path: Path) -> dict[str, Any]:
    """What a file says; empty if it is no mapping."""
    import yaml

    content = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return content if isinstance(content, dict) else {}


def keys_of(path: Path, package: str) -> list[Key]:
    """The keys that a file itself has, except for its defaults list."""
    import yaml

    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()

    def walk(node: yaml.Node, prefix: str) -> Iterator[Key]:
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            if prefix == package and key.value == "defaults":
                continue
            nested = isinstance(value, yaml.MappingNode) and value.value
            written = "" if nested else " ".join(text[value.start_mark.index : value.end_mark.index].split())
            if isinstance(value, yaml.SequenceNode) and not value.flow_style:
                content = yaml.safe_load(yaml.serialize(value))
                written = yaml.safe_dump(content, default_flow_style=True, width=10**6).strip()
            mark = key.end_mark if value.start_mark.line > key.end_mark.line else value.end_mark
            yield Key(name, written, _comment(lines, mark.line, mark.column), str(path))
            if nested:
                yield from walk(value, name)

    tree = yaml.compose(text, yaml.CSafeLoader)
    return list(walk(tree, package)) if isinstance(tree, yaml.MappingNode) else []


def _comment(lines: Sequence[str], row: int, column: int) -> str:
    """The comment at the end of a line, with the lines below that continue it in the same column."""
    found = re.match(r"[:\s]*#\s?(.*)", lines[row][column:]) if row < len(lines) else None
    if found is None:
        return ""
    place = lines[row].index("#", column)
    below = takewhile(lambda line: line.find("#") == place and not line[:place].strip(), lines[row + 1 :])
    return "; ".join([found[1], *(line[place + 1 :].strip() for line in below)])


def head(path: Path) -> tuple[str, dict[str, list[str]]]:
    """The first comment of a file: its text, and what follows each label (`Example:`), by label."""
    text, labels, current = "", dict[str, list[str]](), None
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words = line[1:].strip()
        if words.startswith("@package"):
            continue
        if (label := LABEL.match(words)) and (label[1] in ("Example", "Question") or "Question" in labels):
            current = label[1]
            labels.setdefault(current, []).append(words[label.end() :].strip())
        elif current == "Example" or current is None:
            current, text = None, f"{text} {words}".strip()
        else:
            labels[current][-1] += f" {words}"
    return text, labels


def summary(path: Path) -> str:
    """A file's description in one sentence."""
    text, labels = head(path)
    text = text or next(iter(labels.get("Question", [])), "")
    sentence = re.split(r"(?<=[.?])\s+(?=[A-Z(])", text, maxsplit=1)[0].removesuffix(".")
    return sentence[:1].upper() + sentence[1:]
