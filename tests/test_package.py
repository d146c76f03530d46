"""What is published: built, checked, installed in a fresh environment, and used away from the source."""

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

import videopool
from conftest import ROOT, SMALL

PLACES = ("conf/config.yaml", "conf/pooling/adaptive.yaml", "experiments/quickstart.yaml", "experiments/published.yaml")
TASKS = "+benchmark.tasks=[existence,event_order]"
POOLING = """
from videopool.pooling import Pooling


class LastFrame(Pooling):
    def forward(self, grid, context=None):
        return grid[:, -1].flatten(1, 2)

    def num_tokens(self, frames, height, width):
        return height * width
"""


def run(*words, **more):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    assert videopool.__version__ in source.name
    assert videopool.__version__ in wheel.name
    return source, wheel


def test_an_index_would_take_them(built):
    told = run(sys.executable, "-m", "twine", "check", "--strict", *built)
    assert told.count("PASSED") == 2


def test_they_hold_what_is_needed_and_no_more(built):
    source, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"videopool/{place}" for place in (*PLACES, "py.typed")} <= set(names)
    parts = {"videopool", "hydra_plugins", f"videopool-{videopool.__version__}.dist-info"}
    assert {name.partition("/")[0] for name in names} == parts
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {*PLACES, "LICENSE", "README.md", "tests/conftest.py"} <= inside
    assert not {"results", "data", ".venv", ".git"} & {name.partition("/")[0] for name in inside}
    assert wheel.stat().st_size < 5e6


def test_a_fresh_environment_runs_it_with_a_pooling_of_the_folder(built, tmp_path, data_dir):
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", built[1])
    # The libraries come from here. Nothing else does: an editable install of the source would be found last.
    site = next((environment / "lib").glob("python*/site-packages"))
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.py").write_text(POOLING)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = environment / "bin" / "videopool"
    assert run(command, "--version", cwd=work, env=clean).split() == ["videopool", videopool.__version__]
    place = run(python, "-c", "import videopool; print(videopool.__file__)", cwd=work, env=clean)
    assert place.startswith(str(environment))
    told = run(
        *(command, "pooling._target_=mine.LastFrame", "frames.num=2", f"data_dir={data_dir}", *SMALL, TASKS),
        cwd=work,
        env=clean,
    )
    assert "done" in told
    assert list((work / "results" / "default").glob("mini-lastframe-*/metrics.json"))
