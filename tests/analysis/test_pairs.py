"""Each notebook of analysis/ is a pair: the text that is edited, and the same cells with the real study's outputs."""

import ast
import json
import re
import shutil
import subprocess
import sys

import jupytext
import pytest

from conftest import ROOT

ANALYSIS = ROOT / "analysis"
NAMES = sorted(path.stem for path in ANALYSIS.glob("*.py") if path.stem != "execute")
MADE = sorted(path.stem for path in ANALYSIS.glob("*.ipynb"))
MOST = 300_000  # bytes; a page of a repository shows no larger ones
PATHS = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|mnt|Users|private|usr|opt|srv|var)/")


def shows(source):
    """Whether the last line of a cell is a value."""
    lines = ast.parse(source.replace("%matplotlib", "# ")).body
    call = lines[-1].value if lines and isinstance(lines[-1], ast.Expr) else None
    return call is not None and not (
        isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("run", "run_each", "print")
    )


def test_every_text_has_its_notebook():
    assert MADE == NAMES


@pytest.mark.parametrize("name", MADE)
def test_a_notebook_is_its_text_with_outputs(name):
    path = ANALYSIS / f"{name}.ipynb"
    text, made = jupytext.read(ANALYSIS / f"{name}.py", fmt="py:percent"), json.loads(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < MOST
    assert [(c.cell_type, c.source) for c in text.cells] == [
        (c["cell_type"], "".join(c["source"])) for c in made["cells"]
    ]
    assert [dict(c.metadata) for c in text.cells] == [c["metadata"] for c in made["cells"]], "and nothing else"
    assert set(made["metadata"]) == {"kernelspec", "language_info"}
    cells = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = {output["output_type"] for output in cell["outputs"]}
        assert kinds == ({"execute_result"} if shows("".join(cell["source"])) else set()), cell["source"]
    content = path.read_text(encoding="utf-8")
    assert not PATHS.search(re.sub(r'"image/\w+": "[^"]*"|base64,[^"\\]*', "", content)), "a path of the machine"
    assert str(ROOT) not in content


@pytest.mark.parametrize("name", MADE)
def test_saved_figures_are_those_that_the_notebook_shows(name):
    from base64 import b64encode

    made = json.loads((ANALYSIS / f"{name}.ipynb").read_text(encoding="utf-8"))
    figures = [cell for cell in made["cells"] if "figure" in cell["metadata"]]
    assert figures
    for cell in figures:
        file = ANALYSIS / "figures" / f"{name}_{cell['metadata']['figure']}.png"
        (shown,) = [output["data"]["image/png"] for output in cell["outputs"]]
        assert b64encode(file.read_bytes()).decode() == "".join(shown).replace("\n", "")


NOTEBOOK = """# %% tags=["parameters"]
count = 40

# %% jupyter={"outputs_hidden": true}
import time
print(time.time())

# %% [markdown]
# A figure.

# %% figure="ramp"
import io
import numpy, PIL.Image
from IPython.display import Image
file = io.BytesIO()
PIL.Image.fromarray(numpy.arange(count * count * 3).astype("uint8").reshape(count, count, 3)).save(file, "PNG")
Image(file.getvalue())
"""


def test_the_same_study_gives_the_same_file(tmp_path):
    shutil.copy(ANALYSIS / "execute.py", tmp_path)
    (tmp_path / "ramp.py").write_text(NOTEBOOK)
    made = []
    for words in ([], [], ["count=30"]):
        there = tmp_path / f"there{len(made)}"
        there.mkdir()
        command = [sys.executable, str(tmp_path / "execute.py"), "ramp", *words]
        subprocess.run(command, check=True, cwd=there, timeout=120, capture_output=True)
        # A notebook with other parameters leaves the one beside the text alone.
        assert (there / "ramp.ipynb").exists() == bool(words)
        made.append((tmp_path / "ramp.ipynb").read_bytes())
    assert made[0] == made[1] == made[2]
    cells = json.loads(made[0])["cells"]
    assert [cell["id"] for cell in cells] == ["cell-0", "cell-1", "cell-2", "cell-3"]
    assert cells[1]["outputs"] == []
    assert [set(output["data"]) for output in cells[3]["outputs"]] == [{"image/png", "text/plain"}]
