"""The documentation site: built from docs/ with warnings as errors, whole, and with all names and keys."""

import html
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from conftest import ROOT

DOCS = ROOT / "docs"
CONF = ROOT / "conf"
ELSEWHERE = {  # pages whose text is elsewhere
    "readme": "README.md",
    "contributing": "CONTRIBUTING.md",
    "studies": "experiments/README.md",
    "notebooks": "analysis/README.md",
    "changelog": "CHANGELOG.md",
}


def loaded(path):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("sooner")
def test_the_site(tmp_path):
    """One test, because one build serves all checks. Needs the extra `docs`."""
    site = tmp_path / "html"
    words = ["sphinx", "-W", "-n", "--keep-going", "-q", "-d", f"{tmp_path}/trees", str(DOCS), str(site)]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check_links(site)
    for page, file in ELSEWHERE.items():
        first = next(line for line in (ROOT / file).read_text().splitlines() if line.startswith("# "))
        text = html.unescape((site / f"{page}.html").read_text(encoding="utf-8"))
        assert f"<h1>{first.removeprefix('# ')}<" in text
        assert "The site shows" not in text
    assert 'src="_images/architecture.svg"' in (site / "architecture.html").read_text(encoding="utf-8")
    check_names(site)
    check_keys(site)


def check_links(site):
    """Every link and picture of every page leads to a file of the site, and every anchor is there."""
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html") if "_static" not in page.parts}
    ids = {page: set(re.findall(r'\sid="([^"]+)"', text)) for page, text in pages.items()}
    broken = []
    for page, text in pages.items():
        for link in re.findall(r'\s(?:href|src)="([^"]+)"', text):
            name, _, anchor = unquote(html.unescape(link)).partition("#")
            if re.match(r"\w+:|//", name):
                continue
            target = Path(os.path.normpath(page.parent / name.partition("?")[0])) if name else page
            if not target.exists() or (anchor and target in ids and anchor not in ids[target]):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken
    assert {page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md")} <= {
        page.relative_to(site).with_suffix("") for page in pages
    }


def check_names(site):
    """The API reference has every public name."""
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    documented = set(re.findall(r'\sid="(videopool[\w.]*)"', text))
    for page in (DOCS / "api").glob("*.md"):
        module = re.search(r"automodule:: (\S+)", page.read_text())
        if module:
            names = getattr(importlib.import_module(module[1]), "__all__", ())
            assert {f"{module[1]}.{name}" for name in names} <= documented
    assert "videopool.command.run" in documented


def keys_in(value, prefix):
    for key, inner in value.items():
        if key == "defaults" or not isinstance(key, str):
            continue
        name = f"{prefix}.{key}".removeprefix(".")
        if isinstance(inner, dict) and inner and all(isinstance(one, str) for one in inner):
            yield from keys_in(inner, name)
        elif key != "_target_":
            yield name


def check_keys(site):
    """Every key is on the page of keys, and explained."""
    text = html.unescape(re.sub(r"</?span[^>]*>", "", (site / "configuration.html").read_text(encoding="utf-8")))
    there = set(re.findall(r">([\w.@/-]+)</code>", text))
    count = 0
    for file in CONF.rglob("*.yaml"):
        group, source = file.parent.relative_to(CONF).as_posix(), file.read_text(encoding="utf-8")
        if group == "hydra/help":
            continue
        own = "" if group == "." or "# @package _global_\n" in source else group.split("/zoo")[0].replace("/", ".")
        for key in keys_in(yaml.safe_load(source), own):
            assert key in there, f"{file}: {key}"
            count += 1
        choice = file.relative_to(CONF / group.split("/zoo")[0]).with_suffix("").as_posix()
        assert group == "." or f">{group.split('/zoo')[0]}={choice}<" in text, file
    assert count > 500
    unexplained = []
    for group, choices in loaded(DOCS / "_ext" / "keys.py").read().items():
        for choice in choices.values():
            rows = {row.key: row for row in choice.rows}
            for row in choice.rows:
                told, around = row.meaning, rows.get(row.within)
                while not told and around:
                    told, around = around.meaning, rows.get(around.within)
                trivial = row.key.endswith("_target_") or row.default in ("", choice.name)
                unexplained += [] if told or trivial else [f"{group}={choice.name}: {row.key}"]
    assert not unexplained  # write a comment in its line


def test_every_picture_is_in_the_gallery():
    pictures = {path.resolve() for folder in (DOCS, ROOT / "analysis") for path in folder.rglob("*.png")}
    listed = re.findall(r"\]\(([^)\s]+)\)", (DOCS / "gallery.md").read_text())
    assert pictures <= {(DOCS / name).resolve() for name in listed}


def test_the_program_is_cited_as_released():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    page = (DOCS / "citing.md").read_text()
    released = citation["date-released"]
    for words in (citation["title"], citation["authors"][0]["name"], citation["version"], str(released.year)):
        assert f"{{{words}}}" in page
    assert f"month   = {released:%b}".lower() in page
