"""Docstrings are plain text: what reStructuredText would read as markup is escaped, but for Google's sections."""

import re

from sphinx.application import Sphinx

CODE = re.compile(r"(``[^`]+``|`[^`]+`|>>>.*)")


def _escaped(text: str) -> str:
    text = re.sub(r"([*|\\])", r"\\\1", text)
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", text)


def _plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    for index, line in enumerate(lines):
        lines[index] = "".join(part if CODE.fullmatch(part) else _escaped(part) for part in CODE.split(line))


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's hook."""
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
