"""Dockerfile: what it copies is there, is not ignored, and suffices to build the package; it runs as no root."""

import re
import tomllib
from fnmatch import fnmatch

from packaging.specifiers import SpecifierSet

from conftest import ROOT

LINES = re.sub(r" *\\\n *", " ", (ROOT / "Dockerfile").read_text()).splitlines()
STEPS = [tuple(line.split(" ", 1)) for line in LINES if line and not line.startswith("#")]
COPIED = [name.strip("/") for step, words in STEPS if step == "COPY" for name in words.split()[:-1]]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_what_is_copied_is_there_and_not_ignored():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for name in COPIED:
        assert (ROOT / name).exists()
        matching = [rule for rule in rules if fnmatch(name, rule.lstrip("!"))]
        assert matching[-1] == f"!{name}", f"{name} is ignored"


def test_what_is_copied_builds_the_package():
    build = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], *build["force-include"]]
    needed += [PROJECT["tool"]["hatch"]["version"]["path"], *build["packages"], "pyproject.toml"]
    for path in needed:
        assert any(path == name or path.startswith(f"{name}/") for name in COPIED), f"{path} is not copied"
    (installed,) = [words for step, words in STEPS if step == "RUN" and words.startswith("pip install -c")]
    assert installed == "pip install -c constraints.txt ."


def test_base_user_and_entry():
    steps = dict(STEPS)  # the last of each
    image, version = re.fullmatch(r"(\w+):([\d.]+)-slim", steps["FROM"]).groups()
    assert image == "python"
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])
    assert int(steps["USER"]) >= 1000, "a number, so that orchestrators see that it is not root"
    assert [step for step, _ in STEPS].index("USER") < [step for step, _ in STEPS].index("ENTRYPOINT")
    assert steps["ENTRYPOINT"] == '["videopool"]'
    assert steps["ENTRYPOINT"][2:-2] in PROJECT["project"]["scripts"]


def test_versions_on_the_page_are_those_that_were_tested():
    page = (ROOT / "docs" / "install.md").read_text()
    (pinned,) = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"torch==(\S+)", page + (ROOT / "Makefile").read_text())) == {pinned}
