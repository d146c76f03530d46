"""CONTRIBUTING's recipes, carried out: in a copy of the project with its own checks, and from outside of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conftest import ROOT
from videopool.config.build import build, build_pooling
from videopool.evaluation.run import point_of
from videopool.inference.backbones import own_backbone
from videopool.models.shape import point_shape
from videopool.points.judge import build_judge
from videopool.reports.files import own_figures
from videopool.results import fingerprint

MOST_PLACES = 4
RECIPES = ("pooling", "benchmark", "model family", "judge", "prompt", "figure", "job", "study", "notebook")
# What a recipe changes in files that are there: file, text, text in its place.
CHANGES = {
    "job": ("src/videopool/jobs/run.py", '"speed",', '"speed", "greet",'),
    "study": (
        "experiments/README.md",
        "| `pooling_space`",
        "| `first` | Enough? | | |\n| `pooling_space`",
    ),
    "notebook": ("tests/analysis/test_notebooks.py", "TINY = {", 'TINY = {\n    "first": {},'),
}
CHECKS = (
    "tests/test_architecture.py",
    "tests/benchmarks/test_prompt_snapshots.py",
    "tests/benchmarks/test_shipped_benchmarks.py::test_the_documentation_has_no_other_choices_and_every_file_says_what_it_is",
    "tests/pooling/test_catalogue.py::test_the_page_lists_what_there_is_and_every_file_says_what_it_is",
)
# Of what is checked of every choice, view and study: the added ones.
CHOSEN = (
    "first or (composes and (lines or mirrored or strict or terse or greet)) or not (every_pooling_builds or "
    "every_sampler or every_choice or a_view_is or every_study or studies_of_data)"
)
COPIED = ("src", "conf", "experiments", "analysis", "docs", "tests", "pyproject.toml", "CONTRIBUTING.md")


def recipe(kind):
    """The files of a recipe, by name."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"### A {kind}\n")[1].split("\n### ")[0]
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, flags=re.DOTALL)
    assert blocks, kind
    return dict(blocks)


# Goes into the copy: its checks and a study of what was added share one start.
STUDY = """
import videopool


def test_the_first_study(monkeypatch):
    monkeypatch.setenv("VIDEOPOOL_FIGURES", "png")
    videopool.sweep(
        "experiment=first", "pooling=first_frame", "model=mirrored", "prompt=terse",
        "figures=[{_target_: videopool.figures.bars.Bars, most: 10}]", "logger=none", "data_dir=DATA",
        "benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", "job.workers=0", "results_dir=results",
        "++benchmark.tasks=[existence,event_order]",
    )
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which every recipe was carried out."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.png", "goldens"))
        else:
            shutil.copy(source, folder / name)
    for kind in RECIPES:
        files = recipe(kind)
        assert len(files) + (kind in CHANGES) <= MOST_PLACES, kind
        for name, text in files.items():
            assert not (folder / name).exists(), name
            (folder / name).write_text(text)
        if kind in CHANGES:
            name, old, new = CHANGES[kind]
            before = (folder / name).read_text()
            assert before.count(old) == 1, (name, old)
            (folder / name).write_text(before.replace(old, new))
    return folder


def test_the_projects_checks_pass_and_a_study_of_what_was_added(project, data_dir):
    (project / "tests" / "test_study.py").write_text(STUDY.replace("DATA", str(data_dir)))
    added = ["tests/test_study.py"]
    added += [name for kind in RECIPES for name in recipe(kind) if name.startswith("tests/")]
    words = ["pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, *CHECKS, *added]
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "VIDEOPOOL_ACCEPT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((project / "results" / "first" / "figures").glob("score_*bars_*.png"))
    notebook = (project / "analysis" / "first.py").read_text()
    exec(compile(notebook.replace("../results", str(project / "results")), "first.py", "exec"), {})


def test_from_outside(tmp_path, monkeypatch, hydra_conf, data_dir):
    """The classes of the recipes in a folder of the user's: nothing of the project is changed."""
    for kind in ("pooling", "benchmark", "model family", "judge", "figure"):
        name, text = next(iter(recipe(kind).items()))
        (tmp_path / f"own_{Path(name).name}").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    own = {
        "pooling": ["pooling._target_=own_first_frame.FirstFrame"],
        "model": [
            "model=local",
            "model._target_=own_mirrored.Mirrored",
            "model.source=videopool:shapes/mini_llava",
            "prompt=plain",
        ],
        "figures": ["figures=[{_target_: own_bars.Bars, most: 3}]"],
    }
    config = hydra_conf(
        *(word for words in own.values() for word in words),
        "judge._target_=own_strict.StrictJudge",
        f"data_dir={data_dir}",
    )
    assert build_pooling(config).num_tokens(3, 4, 5) == 20
    assert type(own_backbone(config.model)).__name__ == "Mirrored"
    assert point_shape(config.model).height == 12
    assert build_judge(config).id.startswith("strict:v1:own_strict.StrictJudge:")
    ((key, figure),) = own_figures(config).items()
    assert (figure.most, "own_bars" in key) == (3, True)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "q.tsv").write_text("a.mp4\twho runs?\ta dog\n")
    lines = {"_target_": "own_lines.load_lines", "id": "x", "split": "y", "root": str(tmp_path)}
    lines = OmegaConf.create({"benchmark": {**lines, "annotations": f"{tmp_path}/q.tsv"}})
    assert build(lines, "benchmark").id == "x/y"
    # The class and its source are part of what determines the numbers.
    small = ["benchmark.clips=30", "benchmark.per_task=2", f"data_dir={data_dir}"]
    plain = [*own["model"][:1], *own["model"][2:], *small]
    assert fingerprint(point_of(hydra_conf(*plain)).identity()) != fingerprint(
        point_of(hydra_conf(*own["model"], *small)).identity()
    )
    for module in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[module]
