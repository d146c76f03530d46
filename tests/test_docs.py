"""The pages: links lead somewhere, and what they say of the code is so.

`VIDEOPOOL_ACCEPT=1 .venv/bin/pytest -n 0 tests/test_docs.py` draws the rooms and lists the walk again.
"""

import ast
import itertools
import os
import re
import sys

import pytest

from conftest import ROOT
from draw_rooms import PICTURE, draw
from test_architecture import SOURCE
from videopool.evaluation import run
from videopool.inference import feature_key

ARCHITECTURE = ROOT / "docs" / "architecture.md"
WALKED = ("points/", "config/", "evaluation/")
MOST_STAYS = 20

PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[ae]*/*.md")] if path.is_file()
)


def text_of(page):
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """GitHub's anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def kept(path, text):
    """A file that a test wrote, and that is as it would be written now."""
    if os.environ.get("VIDEOPOOL_ACCEPT"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_the_picture_of_the_rooms_is_what_the_rules_give():
    kept(PICTURE, draw())


def test_named_functions_exist():
    """`room/file.py::Name.method` in the pages."""
    for page in PAGES:
        for file, name in re.findall(r"`([\w/]+\.py)::([\w.]+)`", page.read_text()):
            scope = ast.parse((SOURCE / file).read_text())
            for part in name.split("."):
                inner = [node for node in scope.body if getattr(node, "name", None) == part]
                assert inner, f"{page.name}: {file}::{name}"
                scope = inner[0]


def stays(config, monkeypatch):
    """Entries into another file of WALKED from evaluate(config) until the point is made, as (depth, file::name)."""
    folder, entries, open_entries = f"{SOURCE}/", [], []

    def file_of(frame):
        while frame is not None and not frame.f_code.co_filename.startswith(folder):
            frame = frame.f_back
        return "" if frame is None else frame.f_code.co_filename.removeprefix(folder)

    def trace(frame, event, _):
        code = frame.f_code
        file = code.co_filename.removeprefix(folder)
        if event == "call" and file.startswith(WALKED) and file != file_of(frame.f_back):
            entries.append((len(open_entries), f"{file}::{code.co_qualname}"))
            open_entries.append(frame)
        elif event == "return" and open_entries and open_entries[-1] is frame:
            open_entries.pop()

    monkeypatch.setattr(run, "evaluate_point", lambda point: point)
    feature_key._build.cache_clear()  # as in a new process
    sys.setprofile(trace)
    try:
        run.evaluate(config)
    finally:
        sys.setprofile(None)
    return entries


def test_the_walk_to_a_point_is_the_one_of_the_page(hydra_conf, data_dir, monkeypatch):
    words = "pooling=adaptive frames.num=4 benchmark.clips=12 benchmark.per_task=1 benchmark.limit=1 logger=none"
    entries = stays(hydra_conf(*words.split(), f"data_dir={data_dir}"), monkeypatch)
    assert len(entries) <= MOST_STAYS
    lines = [f"{len(entries)} entries:"]
    for (depth, name), same in itertools.groupby(entries):
        count = len(list(same))
        lines.append(f"{'  ' * depth}{name}" + (f" ({count} times)" if count > 1 else ""))
    walk = "```text\n" + "\n".join(lines) + "\n```\n"
    text = ARCHITECTURE.read_text()
    start = text.index("```text\n", text.index("## One walk"))
    end = text.index("```\n", start + 8) + 4
    kept(ARCHITECTURE, text[:start] + walk + text[end:])
