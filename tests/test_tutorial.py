"""docs/tutorial.md, carried out from its own text in a fresh folder."""

import re
import shlex
import subprocess
import sys

from conftest import ROOT
from random_models import save
from videopool.results import load_study

PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?:[Ss]ave this as `([\w.]+)`(?:(?!\n\n).)*\n\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_tutorial_does_what_it_says(videopool, tmp_path):
    text = PAGE.read_text()
    folder, ran, included = tmp_path, [], []
    save(tmp_path / "my_llava", "llava")
    for name, kind, block in BLOCK.findall(text[text.index("## Clips") :]):
        if name:
            (folder / name).write_text(block)
            continue
        if kind == "text":
            included += re.findall(r"\{(.*)\}", block)
            continue
        assert not kind, f"a block of {kind} without a file"
        for line in block.replace("\\\n", "").splitlines():
            word, *rest = shlex.split(line)
            ran.append(word)
            if word == "videopool":
                assert folder == tmp_path
                videopool(*rest, "logger=none", small=False)
            elif word == "cd":
                folder = (folder / rest[0]).resolve()
            elif word == "python":
                subprocess.run([sys.executable, *rest], cwd=folder, check=True, timeout=100)
            else:
                subprocess.run([word, *rest], cwd=folder, check=True)
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
