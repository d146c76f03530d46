"""Pages that tell to save files and run commands, carried out from their own text in a fresh folder."""

import re
import shlex
import subprocess
import sys

from conftest import ROOT
from random_models import save
from videopool.results import load_study

DOCS = ROOT / "docs"
FLAGS = re.DOTALL | re.MULTILINE
BLOCK = re.compile(r"(?:[Ss]ave this as `([\w./]+)`(?:(?!\n\n).)*?\n\n?)?^```(\w*)\n(.*?)^```$", FLAGS)


def carry_out(text, folder, videopool):
    """Save the files of a page's text and run its commands. Gives the words of the commands, and LaTeX's inputs."""
    ran, included, here = [], [], folder
    for name, kind, block in BLOCK.findall(text):
        if name:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(block)
            continue
        if kind == "text":
            included += re.findall(r"\{(.*)\}", block)
            continue
        assert not kind, f"a block of {kind} without a file"
        for line in block.replace("\\\n", "").splitlines():
            word, *rest = shlex.split(line)
            ran.append(word)
            if word == "videopool":
                assert here == folder
                alone = ["job.workers=0"] if "-m" in rest and "job=plan" not in rest else []
                videopool(*rest, "logger=none", *alone, small=False)
            elif word == "cd":
                here = (here / rest[0]).resolve()
            else:
                subprocess.run([sys.executable if word == "python" else word, *rest], cwd=here, check=True, timeout=100)
    return ran, included


def test_the_tutorial_does_what_it_says(videopool, tmp_path):
    text = (DOCS / "tutorial.md").read_text()
    save(tmp_path / "my_llava", "llava")
    ran, included = carry_out(text[text.index("## Clips") :], tmp_path, videopool)
    assert ran.count("videopool") == 7
    assert [(tmp_path / file).is_file() for file in included] == [True]
    assert (tmp_path / "score_by_frames.pdf").stat().st_size > 1000
    assert (tmp_path / "results/mine/report.html").exists()
    table = load_study(tmp_path / "results/mine").set_index(["pooling", "frames"])
    assert len(table) == 8
    assert table.score["average time", 16] == 1  # what the page says of the two points
    assert table.score["none", 16] == 0.75
    assert (table.visual_tokens.firstframe == 144).all()
    assert len(load_study(tmp_path / "results/my_llava")) == 2
    faq = (DOCS / "faq.md").read_text()  # a benchmark of the same clips in a file
    (part,) = re.findall(r"^### How do I keep a benchmark of my own in a file\?.*?(?=^##)", faq, FLAGS)
    assert carry_out(part, tmp_path, videopool)[0] == ["videopool"]
    assert load_study(tmp_path / "results/kitchen").benchmark.tolist() == ["kitchen/own"]
