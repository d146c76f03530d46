"""Pages whose text is elsewhere in the repository, and links that work on the site as on a code host."""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)#\s]+)")


def _relinked(text: str, home: Path, here: Path, shown: dict[Path, Path]) -> str:
    """Text of a page in folder `home`, to be shown in folder `here`: its links lead to what they led to."""

    def link(match: re.Match[str]) -> str:
        if re.match(r"\w+:", match[2]):
            return match[0]
        target = Path(os.path.normpath(home / match[2]))
        return match[1] + os.path.relpath(shown.get(target, target), here)

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    root, here = app.srcdir.parent, Path(app.env.doc2path(docname)).parent
    shown = {root / file: app.srcdir / f"{page}.md" for page, file in app.config.pages_from.items()}
    file = app.config.pages_from.get(docname)
    if file:
        app.env.note_dependency(str(root / file))
        content[0] = (root / file).read_text(encoding="utf-8")
    content[0] = _relinked(content[0], (root / file).parent if file else here, here, shown)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's hook."""
    app.add_config_value("pages_from", {}, "env")
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
