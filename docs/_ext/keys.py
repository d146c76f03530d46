"""The reference of keys, made of the files of conf/ and their comments, at the end of the page named by `keys_page`."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from sphinx.application import Sphinx

COMMENT = re.compile(r"^\s*#\s?(.*)$")
CODE = re.compile(r"(`[^`]+`)")
GLOBAL = "_global_"


@dataclass
class Row:
    """A key, its default as written on the command line, and what its comments say."""

    key: str
    default: str
    meaning: str = ""
    within: str = ""  # the key of the mapping that holds it


class Choice:
    """One file of conf/: what stands at its head, what it builds on, its keys."""

    def __init__(self, conf: Path, file: Path) -> None:
        text = file.read_text(encoding="utf-8")
        self.lines = text.splitlines()
        *folders, name = file.relative_to(conf).with_suffix("").parts
        depth = 2 if folders[:1] == ["hydra"] else 1  # pooling/zoo/adaptive.yaml is pooling=zoo/adaptive
        self.group = "/".join(folders[:depth]) or "."
        self.name = "/".join([*folders[depth:], name])
        head = []
        for line in self.lines:
            if not line.startswith("#"):
                break
            head.append(line.removeprefix("#").strip())
        self.head = " ".join(line for line in head if not line.startswith("@package"))
        package = "" if self.group == "." or f"@package {GLOBAL}" in head else self.group.replace("/", ".")
        self.target: str | None = None
        self.bases: list[tuple[str, str, str]] = []  # group, choice, and where the choice's keys are put
        self.rows: list[Row] = []
        self.package = package
        self._first = len(head)  # line after the head
        self._add(yaml.compose(text), package, top=True)

    def _add(self, node: yaml.MappingNode, prefix: str, top: bool = False) -> None:
        for key, value in node.value:
            name = f"{prefix}.{key.value}".removeprefix(".")
            if top and key.value == "defaults":
                self._add_defaults(value)
                continue
            if top and key.value == "_target_" and value.value != "null":
                self.target = value.value
                continue
            inner = isinstance(value, yaml.MappingNode) and all(one.tag.endswith(":str") for one, _ in value.value)
            default = "" if inner and not value.flow_style else _default(value)
            self.rows.append(Row(name, default, self._comment(key, value), "" if top else prefix))
            if inner:
                self._add(value, name)

    def _add_defaults(self, node: yaml.SequenceNode) -> None:
        for item in node.value:
            if isinstance(item, yaml.MappingNode):
                ((key, value),) = item.value
                group, _, package = key.value.removeprefix("override ").removeprefix("/").partition("@")
                name = group if not package or package.startswith(GLOBAL) else f"{group}@{package}"
                place = "studies.md" if group == "experiment" else f"#{group.replace('/', '')}"
                told = self._comment(key, value) or f"the group [{group}]({place})"
                if not group.startswith("hydra/"):
                    self.rows.append(Row(name, _default(value), told))
                if package and not package.startswith(GLOBAL):
                    self.bases.append((group, value.value, f"{self.package}.{package}".strip(".")))
            elif item.value != "_self_":
                choice, _, package = item.value.partition("@")
                self.bases.append((self.group, choice, f"{self.package}.{package}".strip(".")))

    def _comment(self, key: yaml.Node, value: yaml.Node) -> str:
        """Of the key's and the value's line, and of the lines above and below that belong to them."""
        last = value.end_mark
        block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        told, ends = [], {key.end_mark.line: key.end_mark.column + 1}
        if not block:
            ends[last.line] = last.column
        for line, column in sorted(ends.items()):
            found = re.search(r"\s#\s?(.*)$", self.lines[line][column:])
            told += [found[1].strip()] if found else []
        below = max(ends) + 1
        while below < len(self.lines) and (found := COMMENT.match(self.lines[below])):
            indented = len(self.lines[below]) - len(self.lines[below].lstrip()) > key.start_mark.column
            if not (indented and not block) and not found[1].startswith(" "):
                break
            told.append(found[1].strip())
            below += 1
        above = key.start_mark.line - 1
        found = COMMENT.match(self.lines[above]) if above >= self._first else None
        if found and not found[1].startswith(" ") and self.lines[above].index("#") == key.start_mark.column:
            told.insert(0, found[1].strip())
        return " ".join(told)


def _default(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return {"'": "'{}'", '"': '"{}"'}.get(node.style or "", "{}").format(node.value.replace("\n", "\\n"))
    value = yaml.safe_load(yaml.serialize(node))
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()


def read(conf: Path) -> dict[str, dict[str, Choice]]:
    """All choices by group; the group "." has config.yaml.

    A key without a comment has its meaning from the choice that its own builds on, else from one that makes the same
    class, or, for a key of another group, from there.
    """
    groups: dict[str, dict[str, Choice]] = {}
    for file in sorted(conf.rglob("*.yaml")):
        choice = Choice(conf, file)
        if choice.group != "hydra/help":
            groups.setdefault(choice.group, {})[choice.name] = choice
    everything = [choice for choices in groups.values() for choice in choices.values()]
    own = {id(choice): {row.key: row.meaning for row in choice.rows if row.meaning} for choice in everything}
    for choice in everything:
        made = _target(groups, choice)
        told = _inherited(groups, choice, own)
        for row in choice.rows:
            foreign = not row.key.startswith(choice.group.replace("/", "."))
            same = [one for one in groups[choice.group].values() if _target(groups, one) == made]
            alike = everything if foreign else same
            others = (own[id(one)].get(row.key, "") for one in alike)
            row.meaning = row.meaning or told.get(row.key) or next(filter(None, others), "")
    return groups


def _bases(groups: dict[str, dict[str, Choice]], choice: Choice) -> list[tuple[Choice, str]]:
    found = [(groups.get(group, {}).get(name), package) for group, name, package in choice.bases]
    return [(base, package) for base, package in found if base is not None]


def _target(groups: dict[str, dict[str, Choice]], choice: Choice) -> str | None:
    return choice.target or next(
        (_target(groups, base) for base, _ in _bases(groups, choice) if base.group == choice.group), None
    )


def _inherited(groups: dict[str, dict[str, Choice]], choice: Choice, own: dict[int, dict[str, str]]) -> dict[str, str]:
    told: dict[str, str] = {}
    for base, package in _bases(groups, choice):
        for key, meaning in {**_inherited(groups, base, own), **own[id(base)]}.items():
            told[f"{package}{key.removeprefix(base.package)}"] = meaning
    return told


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing but code in backticks, for a cell of a table."""
    parts = [
        part.replace("|", "\\|") if CODE.fullmatch(part) else re.sub(r"([\\*_<>|$\[\]{}])", r"\\\1", part)
        for part in CODE.split(text)
    ]
    return "".join(parts)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def page(conf: Path, documented: list[str]) -> str:
    """The reference as Markdown. `documented`: modules whose names the API reference has."""

    def named(target: str) -> str:
        return f"{{py:obj}}`{target}`" if target.rpartition(".")[0] in documented else f"`{target}`"

    def cell(row: Row) -> str:
        meaning = row.meaning if row.meaning.startswith("the group [") else _plain(row.meaning)
        return f"| `{row.key}` | {_code(row.default)} | {meaning} |"

    parts = []
    for group, choices in read(conf).items():
        if group != ".":
            parts.append(f"## {group}\n")
        for choice in choices.values():
            parts.append("## The root\n" if group == "." else f"### {group}={choice.name}\n")
            told = [_plain(choice.head)]
            told += [f"Makes {named(choice.target)}."] if choice.target else []
            same = [f"`{name}`" for other, name, _ in choice.bases if other == group]
            told += [f"Has the keys of {' and '.join(same)} too."] if same and group != "." else []
            parts.append(" ".join(told) + "\n")
            rows = [row for row in choice.rows if row.default or row.meaning]
            if rows:
                parts.append("\n".join(["| key | default | meaning |", "|---|---|---|", *map(cell, rows)]) + "\n")
    return "\n".join(parts)


def _append(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname == app.config.keys_page:
        conf = app.srcdir.parent / "conf"
        for file in conf.rglob("*.yaml"):
            app.env.note_dependency(str(file))
        content[0] += "\n" + page(conf, list(app.config.api))


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's hook."""
    app.add_config_value("keys_page", "", "env")
    app.add_config_value("api", [], "env")
    app.connect("source-read", _append, priority=400)
    return {"parallel_read_safe": True}
