"""Notebooks: every one runs, tiny, and shows what its study measured; they stay thin; what cannot be run is told."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import pytest

from conftest import ROOT
from videopool.paths import shipped
from videopool.reports import read_spreadsheet
from videopool.results import load_study, paired_difference
from videopool.results.study import scores_by_sample

pytestmark = pytest.mark.usefixtures("sooner")
ANALYSIS = ROOT / "analysis"
NAMES = sorted(path.stem for path in ANALYSIS.glob("*.py") if path.stem != "execute")
SMALL = ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=2", "job.workers=0", "logger=none"]
TWO_POINTS = [*SMALL, "frames.num=2", "pooling=none,adaptive_Tx6x6"]
NONE = "{_target_:videopool.pooling.NoPooling}"
CLIPPED = f"[{{_target_:videopool.pooling.ClipNorm,quantile:0.9}},{NONE}]"
SEVEN = "[{_target_:videopool.pooling.Adaptive,shape:[null,7,7]}]"
CLIPPED_SEVEN = CLIPPED.replace(NONE, SEVEN[1:-1])
SELECTORS = "pooling.selector={_target_:videopool.compression.Saliency,kind:norm}"
TINY = {
    "causal_norms": {"overrides": [*SMALL, "frames.num=2", f"pooling.steps=[{NONE}],{CLIPPED}"]},
    "compare_points": {
        "experiment": "frames",
        "study": "frames",
        "first": "mini-adaptive",
        "second": "mini-none",
        "samples": 2,
        "overrides": TWO_POINTS,
    },
    "frame_counts": {"overrides": TWO_POINTS},
    "high_norm_features": {
        "overrides": [
            *SMALL,
            *("frames.num=2", "pooling=none", "job.clips=2", "job.stages=[pooled]", "job.attention_layers=[1]"),
        ],
    },
    "pooling_shapes": {
        # The second command finds the points of the first, which saves their time.
        "overrides": [*SMALL, "frames.num=2", "pooling.shape=[2,6,6],[1,6,6],[2,3,3],[1,3,3]"],
        "space_baseline": "adaptive 2x6x6",
        "time_study": "pooling_space",
        "time_baseline": "adaptive 1x6x6",
    },
    "real_tower": {"results_dir": "real_tower"},
}
REAL = {  # commands of the studies that the notebook real_tower shows
    "unpooled": ["experiment=outliers_causal", "baseline=none", f"pooling.steps=[{NONE}],{CLIPPED}"],
    "by_frame": ["experiment=outliers_causal", "baseline=adaptive Tx7x7", f"pooling.steps={SEVEN},{CLIPPED_SEVEN}"],
    "selectors": ["experiment=selectors_registers", "model.tower={register:null},{register:zeros}", f"++{SELECTORS}"],
    "norms": [
        *("job=norms", "pooling=even", "job.overlap=true", "job.clips=2", "job.stages=[encoder,pooled]"),
        "job.rules.times_median=1.05",  # so that there are outliers
    ],
}


def execute(*words, script=ANALYSIS / "execute.py", env=None, **values):
    given = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]
    return subprocess.run(
        [sys.executable, str(script), *map(str, words), *given],
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
        check=False,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory, data_dir):
    """Runs a notebook on tiny settings; returns the study's folder, and what its cells of code gave out, as one text.

    Notebooks share a folder of results: one that another's study serves does not run it again.
    """
    root = tmp_path_factory.mktemp("notebooks")

    def run(name, **own):  # own: parameters
        values = {"results_dir": str(root / "results"), "data_dir": str(data_dir), **TINY[name], **own}
        done = execute(name, "--out", root / "out", "--figures", root / "figures", **values)
        assert done.returncode == 0, done.stderr
        cells = [
            c for c in json.loads((root / "out" / f"{name}.ipynb").read_text())["cells"] if c["cell_type"] == "code"
        ]
        assert all(cell["execution_count"] for cell in cells), "every cell was run"
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert not [o for o in outputs if o["output_type"] == "error"]
        drawn = len([o for o in outputs if "image/png" in o.get("data", {})])
        saved = sorted((root / "figures").glob(f"{name}_*.png"))
        assert drawn >= len(saved) == len([cell for cell in cells if "figure" in cell["metadata"]]) > 0
        assert all(path.stat().st_size > 5000 for path in saved)
        return root / "results", "\n".join(text_of(output) for output in outputs)

    return run


def text_of(output):
    """All that an output says in words."""
    said = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
    return "\n".join("".join(part) for part in said)


def scores(study):
    return {f"{100 * score:.1f}" for score in load_study(study).score}


def test_every_notebook_has_tiny_settings():
    assert set(NAMES) == set(TINY)


def test_frame_counts(ran):
    results, said = ran("frame_counts")
    table = load_study(results / "frames")
    assert len(table) == 2
    for score in scores(results / "frames"):
        assert re.search(rf"\| \**{score}\**<sub>", said), "the table of the notebook, not that of the command"


def test_compare_points(ran):
    results, said = ran("compare_points")
    folders = load_study(results / "frames").set_index("pooling").folder
    first, second = (scores_by_sample(folders[name]) for name in ("adaptive Tx6x6", "none"))
    ids = sorted(i for i, (_, _, task) in first.items() if task == "object_count")
    wanted = paired_difference(*([s[i][0] for i in ids] for s in (first, second)), [first[i][1] for i in ids])
    assert re.search(rf"object_count +{len(ids)} +{wanted.clusters} +{wanted.value:.1f}0* ", said)
    assert said.count("<article>") == 2
    assert said.count('src="data:image/jpeg') == 4, "two frames of each sample"


def test_pooling_shapes(ran):
    results, said = ran("pooling_shapes")
    table = load_study(results / "pooling_space").set_index("pooling")
    assert len(table) == 4
    for score in scores(results / "pooling_space"):
        assert len(re.findall(rf"\| \**{score}\**<sub>", said)) >= 2, "in the tables of both studies"
    lost = f"{100 * (table.score['adaptive 1x6x6'] - table.score['adaptive 2x6x6']):+.1f}"
    back = lost.translate(str.maketrans("+-", "-+"))
    for difference in (lost, back):
        assert f"| {difference}<sub>" in said, "each study has its own baseline"


def test_causal_norms(ran):
    results, said = ran("causal_norms")
    assert set(load_study(results / "causal_norms").pooling) == {"none", "clip norm q0.9 + none"}
    assert re.search(r"\| clip norm q0.9 \+ none \|", said)


def test_real_tower(ran, tmp_path):
    """From tables that are kept, and from studies that it runs."""
    said = ran("real_tower")[1]
    kept = read_spreadsheet(ANALYSIS / "real_tower" / "selectors" / "sweep.csv")
    results = tmp_path / "results"
    words = ["model=mini", "frames.num=2", *SMALL]
    commands = [["-m", f"study={study}", *words, *own] for study, own in REAL.items()]
    measured = ran("real_tower", commands=commands, results_dir=str(results))[1]
    ours = load_study(results / "selectors")
    assert set(ours.model) == {"mini", "mini register 1"}
    for table, shown in ((kept, said), (ours, measured)):
        for score in table[table.pooling.str.contains("norm")].score:
            assert re.search(rf"\| \**{100 * score:.1f}\**<sub>", shown)
    assert set(load_study(results / "unpooled").pooling) == {"none", "clip norm q0.9 + none"}
    assert re.search(r"\| clip norm q0.9 \+ adaptive Tx7x7 \|", measured)
    assert "even 0.25" in measured


def test_high_norm_features(ran):
    results, said = ran("high_norm_features")
    (point,) = (results / "high_norm_features").glob("norms-*")
    numbers = json.loads((point / "norms.json").read_text())
    assert point.name in said
    told = f"{numbers['stages']['pooled']['max_over_median']:.6f}".rstrip("0")
    assert told in said, "more digits than the command prints"


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_thin(name):
    """Parameters first, then imports, calls and values: what branches, loops or defines belongs to the package."""
    notebook = jupytext.read(ANALYSIS / f"{name}.py", fmt="py:percent")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert ["parameters" in cell.metadata.get("tags", []) for cell in cells] == [True] + [False] * (len(cells) - 1)
    logic = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.With)
    for cell in cells:
        for node in ast.walk(ast.parse(cell.source.replace("%matplotlib", "# "))):
            assert not isinstance(node, logic), ast.unparse(node)
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in ("videopool", "pathlib", "IPython"), node.module
            assert not isinstance(node, ast.Import), ast.unparse(node)
    assigned = {line.targets[0].id: line.value for line in ast.parse(cells[0].source).body}
    if "experiment" in assigned:
        assert (shipped("experiments") / f"{assigned['experiment'].value}.yaml").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_what_jupyter_saves_is_what_is_committed(name):
    """Read and written again under the folder's own settings, a notebook does not change."""
    path = ANALYSIS / f"{name}.py"
    settings = jupytext.config.load_jupytext_config(str(path))
    notebook = jupytext.read(path, fmt="py:percent", config=settings)
    assert jupytext.writes(notebook, fmt="py:percent", config=settings) == path.read_text()


GOOD = '# %% tags=["parameters"]\ncount = 1\nword = "a"\n# %%\nopen(word, "w").write(str(count + 1))\n'
RAISES = '# %% tags=["parameters"]\ncount = 1\n# %%\ncount / 0\n# %%\nopen("later", "w")\n'
DIES = '# %% tags=["parameters"]\ncount = 1\n# %%\nimport os\nos._exit(3)\n'
BARE = '# %% tags=["parameters"]\ncount = 1\n# %% figure="curve"\ncount\n'


@pytest.fixture
def folder(tmp_path):
    """A folder of notebooks like analysis/; names as they are run."""
    shutil.copy(ANALYSIS / "execute.py", tmp_path)
    for name, content in {"a_raises": RAISES, "b_dies": DIES, "c_bare": BARE, "d_good": GOOD}.items():
        (tmp_path / f"{name}.py").write_text(content)
    return tmp_path


def test_a_failing_notebook_fails_the_command_but_not_the_others(folder):
    done = execute("--out", folder / "out", "--figures", folder / "figures", script=folder / "execute.py", count=4)
    assert done.returncode == 1
    told = {line.split()[1].strip(":"): line for line in done.stderr.splitlines() if line.startswith("FAILED")}
    assert set(told) == {"a_raises", "b_dies", "c_bare"}
    assert "division by zero (ZeroDivisionError" in told["a_raises"]
    assert "kernel died" in told["b_dies"]
    assert "the cell of figure curve shows 0 figures" in told["c_bare"]
    assert "Traceback" not in done.stderr
    assert not (folder / "later").exists(), "no cell is run behind one that failed"
    assert "ZeroDivisionError" in (folder / "out" / "a_raises.ipynb").read_text()
    assert done.stdout.startswith("done    d_good")
    assert (folder / "a").read_text() == "5", "it runs in its own folder, with what was given in place of the default"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_stop_is_one_line_and_leaves_no_kernel(folder, number):
    content = '# %% tags=["parameters"]\n# %%\nimport os, time\nprint(os.getpid(), file=open("pid", "w"), flush=True)\n'
    (folder / "slow.py").write_text(content + "time.sleep(60)\n")
    before = signal.signal(number, signal.SIG_DFL)  # ignored here, as in a shell's background, it would be so there
    process = subprocess.Popen(
        [sys.executable, str(folder / "execute.py"), "slow"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(number, before)
    pid = folder / "pid"
    while not (pid.is_file() and pid.read_text()) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert [line for line in said.splitlines() if line.startswith("execute.py: stopped")] == said.splitlines()
    assert not is_alive(int(pid.read_text()))


def is_alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_kernel_that_does_not_start_is_one_line(folder):
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false"], "display_name": "none", "language": "python"}))
    done = execute("d_good", script=folder / "execute.py", env={**os.environ, "JUPYTER_PATH": str(folder)})
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("FAILED  d_good: its kernel died or did not start")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no notebook is named nothing; there are: a_raises, b_dies, c_bare, d_good"),
        (["d_good", "other=1"], "d_good has no parameter other; it has: count, word"),
        (["d_good", "count=two"], "d_good: count=two: give int, as in count=1"),
        (["d_good", "count=[1]"], "d_good: count=[1]: give int, as in count=1"),
        (["word=x"], "a_raises has no parameter word"),
    ],
)
def test_what_cannot_be_run_is_one_line(folder, words, said):
    done = execute(*words, script=folder / "execute.py")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(folder.glob("*.ipynb"))
