"""Every command on the pages: pasted into bash and zsh it is the same words, and the program does what they say."""

import shutil
import subprocess
from itertools import zip_longest

import pytest

from conftest import ROOT
from pages import PAGES, SHELL, blocks

# Stands for each program: notes its words, with a mark after the last, and does nothing.
NOTE = """#!/bin/sh
printf '%s\\0' "${0##*/}" "$@" '<end>' >> "$NOTED"
"""
PROGRAMS = (
    "videopool", "make", "python", "python3", "pip", "pytest", "wandb", "git", "docker", "uv", "conda", "rm",
    "pdflatex", "sphinx-build", "hf",
)  # fmt: skip
WRONG = ("no matches found", "command not found", "not found:", "parse error", "syntax error", "event not found")
SHELLS = ("source", "export", "cd", "mkdir", "eval")  # what a shell does itself


def pasted(shell, text, folder):
    """The words of the commands that an interactive shell starts when a text is pasted, and what it complains of."""
    programs = folder / "programs"
    (folder / ".venv").mkdir()
    programs.mkdir()
    (folder / ".venv" / "bin").symlink_to(programs)
    for name in PROGRAMS:
        (programs / name).write_text(NOTE)
        (programs / name).chmod(0o755)
    (programs / "activate").touch()
    (folder / "results" / "mine" / "wandb" / "offline-run-1").mkdir(parents=True)  # what a page names by a pattern
    noted = folder / "noted"
    noted.touch()
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "NOTED": str(noted), "TERM": "dumb"}
    options = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"]}[shell]
    done = subprocess.run(
        [shutil.which(shell), *options, "-i", "-s"],
        input=text, capture_output=True, text=True, env=environment, cwd=folder, timeout=60, check=False,
    )  # fmt: skip
    words, ended = [[]], noted.read_text().split("\0")[:-1]
    for word in ended:
        words.append([]) if word == "<end>" else words[-1].append(word)
    wrong = [line for line in done.stderr.splitlines() if any(one in line for one in WRONG)]
    return words[:-1], wrong


def alike(found, expected):
    """Whether a program got the words of the page; what the shell replaces may be anything."""
    if None in (found, expected) or len(found) != len(expected):
        return False
    program, *others = expected
    pairs = zip(found, [program.rpartition("/")[2], *others], strict=True)
    return all(one == other or {"$", "*"} & set(other) for one, other in pairs)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_pasted_commands_are_the_words_on_the_page(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    faults = {}
    for number, page in enumerate(PAGES):
        shown = [block for block in blocks(page) if block.kind in SHELL]
        expected = [words for block in shown for words in block.commands if words[0] not in SHELLS]
        folder = tmp_path / str(number)
        folder.mkdir()
        found, wrong = pasted(shell, "\n".join(block.text for block in shown) + "\n", folder)
        unlike = [pair for pair in zip_longest(found, expected) if not alike(*pair)]
        if wrong or unlike:
            faults[str(page.relative_to(ROOT))] = wrong or unlike
    assert not faults, faults


def test_the_shells_notice_what_they_would_do_to_words(tmp_path):
    """The check can fail: a comment and a bare bracket."""
    for shell, text in (("zsh", "videopool frames.num=2  # two\n"), ("zsh", "videopool job.poolings=[a,b]\n")):
        if shutil.which(shell):
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            words, wrong = pasted(shell, text, folder)
            assert wrong or words != [["videopool", "frames.num=2"]]
