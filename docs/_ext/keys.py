"""The reference of keys, made of the files of conf/ and their comments, at the end of the page named by `keys_page`."""

import re
from dataclasses import dataclass

from sphinx.application import Sphinx

from videopool.commandline.groups import Groups, content_of, head, keys_of
from videopool.paths import shipped

CODE = re.compile(r"(`[^`]+`)")


@dataclass
class Row:
    """A key, its default as written on the command line, and what its comments say."""

    key: str
    default: str
    meaning: str
    within: str  # the key of the mapping that holds it


@dataclass
class Choice:
    """One file of conf/: what stands at its head, its class, what it builds on, its keys."""

    name: str
    head: str
    target: str | None
    bases: list[str]
    rows: list[Row]


def read() -> dict[str, dict[str, Choice]]:
    """All choices by group; the group "." has config.yaml.

    A key without a comment has its meaning from the choice that its own builds on, else from one that makes the same
    class, or, for a key of another group, from there.
    """
    groups = Groups()
    conf = shipped("conf")
    files = [path for path in sorted(conf.rglob("*.yaml")) if groups.group(path) != "hydra/help"]
    whole = {path: groups.keys(path) for path in files}
    made = {path: next((one.value for one in whole[path] if one.name.endswith("._target_")), "") for path in files}
    told = {(of, key.name): key.comment for path, keys in whole.items() for key in keys if key.comment
            for of in (made[path], "")}  # fmt: skip
    found: dict[str, dict[str, Choice]] = {}
    for path in files:
        content, group, package = content_of(path), groups.group(path), groups.package(path)
        inherited = {key.name: key.comment for key in whole[path]}
        rows, bases = [], []
        for entry in content.get("defaults") or []:
            for key, value in entry.items() if isinstance(entry, dict) else ():
                of, _, where = key.removeprefix("override ").removeprefix("/").partition("@")
                place = "studies.md" if of == "experiment" else f"#{of.replace('/', '')}"
                key = of if not where or where.startswith("_global_") else f"{of}@{where}"
                if not of.startswith("hydra/"):
                    rows.append(Row(key, "null" if value is None else str(value), f"the group [{of}]({place})", ""))
            bases += [entry.partition("@")[0]] if isinstance(entry, str) and entry != "_self_" else []
        target = content.get("_target_")
        for key in keys_of(path, package):
            of = "" if not key.name.startswith(f"{package}.") else made[path]
            meaning = key.comment or inherited.get(key.name) or told.get((of, key.name), "")
            if not target or key.name != f"{package}._target_":
                rows.append(Row(key.name, key.value, meaning, key.name.rpartition(".")[0]))
        name = path.relative_to(conf / group).with_suffix("").as_posix()
        found.setdefault(group, {})[name] = Choice(name, head(path)[0], target, bases, rows)
    return found


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing but code in backticks, for a cell of a table."""
    parts = [
        part.replace("|", "\\|") if CODE.fullmatch(part) else re.sub(r"([\\*_<>|$\[\]{}])", r"\\\1", part)
        for part in CODE.split(text)
    ]
    return "".join(parts)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def page(documented: list[str]) -> str:
    """The reference as Markdown. `documented`: modules whose names the API reference has."""

    def named(target: str) -> str:
        return f"{{py:obj}}`{target}`" if target.rpartition(".")[0] in documented else f"`{target}`"

    def cell(row: Row) -> str:
        meaning = row.meaning if row.meaning.startswith("the group [") else _plain(row.meaning)
        return f"| `{row.key}` | {_code(row.default)} | {meaning} |"

    parts = []
    for group, choices in read().items():
        if group != ".":
            parts.append(f"## {group}\n")
        for choice in choices.values():
            parts.append("## The root\n" if group == "." else f"### {group}={choice.name}\n")
            told = [_plain(choice.head)]
            told += [f"Makes {named(choice.target)}."] if choice.target else []
            same = [f"`{name}`" for name in choice.bases]
            told += [f"Has the keys of {' and '.join(same)} too."] if same and group != "." else []
            parts.append(" ".join(told) + "\n")
            rows = [row for row in choice.rows if row.default or row.meaning]
            if rows:
                parts.append("\n".join(["| key | default | meaning |", "|---|---|---|", *map(cell, rows)]) + "\n")
    return "\n".join(parts)


def _append(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname == app.config.keys_page:
        for file in shipped("conf").rglob("*.yaml"):
            app.env.note_dependency(str(file))
        content[0] += "\n" + page(list(app.config.api))


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's hook."""
    app.add_config_value("keys_page", "", "env")
    app.add_config_value("api", [], "env")
    app.connect("source-read", _append, priority=400)
    return {"parallel_read_safe": True}
