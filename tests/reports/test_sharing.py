"""job=export and job=verify: a folder that needs nothing else, and every number in it computed again."""

import importlib.util
import json
import shutil

import pandas as pd
import pytest

from videopool.reports.sharing import export, verify
from videopool.results import ResultsError, read_records
from videopool.results.recount import recount


@pytest.fixture(scope="module")
def study(tmp_path_factory, forked, data_dir):
    """Two points of two seeds, beside one that has only begun."""
    root = tmp_path_factory.mktemp("shared")
    words = ["-m", "pooling=none,average", "seed=0,1", "frames.num=1", "study=s", "logger=none", "benchmark.limit=2"]
    small = ["benchmark.clips=60", "benchmark.per_task=8", f"data_dir={data_dir}", "baseline=none"]
    done = forked.run([*words, *small], root)
    assert done.returncode == 0, done.stderr
    begun = next((root / "results" / "s").glob("*none*"))
    shutil.copytree(begun, begun.with_name("begun-00000000"))
    begun = begun.with_name("begun-00000000")
    (begun / "metrics.json").unlink()
    manifest = json.loads((begun / "run.json").read_text())
    manifest["identity"]["seed"] = 7
    (begun / "run.json").write_text(json.dumps(manifest))
    return root / "results" / "s"


@pytest.fixture
def exported(study, tmp_path):
    export(study, tmp_path / "out" / "s", "none")
    return tmp_path / "out" / "s"


def test_an_export_stands_alone(study, tmp_path, forked):
    done = forked.run(["job=export", "study=s", f"results_dir={study.parent}"], tmp_path)
    assert done.returncode == 0, done.stderr
    folder = shutil.move(tmp_path / "exports" / "s", tmp_path / "moved")
    done = forked.run(["job=verify", f"job.folder={folder}"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split("verify ")[1].split(": ")[1].split()[0]) > 300
    content = json.loads((folder / "export.json").read_text())
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {*content["files"], "export.json"}
    points = {name.split("/")[0] for name in there if name.endswith("/records.jsonl")}
    assert len(points) == 4
    for point in points:
        assert (folder / point / "records.jsonl").read_bytes() == (study / point / "records.jsonl").read_bytes()
        assert recount(folder / point) == recount(study / point)
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".md", ".csv", ".tex", ".html"):
            text = path.read_text()
            assert str(tmp_path) not in text, path
            assert str(study.parents[1]) not in text, path
    card = (folder / "README.md").read_text()
    assert "average time, none" in card
    assert (folder / "table.md").read_text() in card
    if importlib.util.find_spec("pyarrow"):
        rows = pd.read_parquet(folder / "records.parquet")
        told = [record for point in sorted(points) for record in read_records(folder / point / "records.jsonl")]
        assert sorted(rows.id) == sorted(record["id"] for record in told)
        assert rows.score.sum() == sum(record["score"] for record in told)


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "lines"),
    [
        ("*none*/records.jsonl", '"score": 1.0', '"score": 0.0', ["SHA-256", "metrics.json says", "sweep.csv: "]),
        ("*none*/records.jsonl", '"status": "ok"', '"status": "unreadable"', ["SHA-256", "metrics.json says n = "]),
        (
            "*none*/metrics.json",
            '"ci_low": 0.',
            '"ci_low": 0.0',
            ["SHA-256", "metrics.json says ci_low = ", ": ci_low is "],
        ),
        ("sweep.csv", ",0.", ",0.9", ["SHA-256", "the records give"]),
        ("seeds.csv", "average time", "average space", ["SHA-256", "seeds.csv: row"]),
        ("table.md", "score", "Score", ["SHA-256"]),
    ],
)
def test_whatever_is_changed_is_named(exported, name, old, new, lines):
    assert verify(exported, "none")[1] == []
    changed(next(iter(sorted(exported.glob(name)))), old, new)
    faults = "\n".join(verify(exported, "none")[1])
    assert all(line in faults for line in lines), faults


def test_files_too_few_and_too_many_are_named(exported):
    (exported / "table.tex").unlink()
    (exported / "mine.txt").write_text("x")
    assert verify(exported, "none")[1] == [
        "mine.txt: this file does not belong to the export", "table.tex: this file is missing",
    ]  # fmt: skip
    next(exported.glob("*none*/metrics.json")).unlink()
    assert any("there is no whole metrics.json" in line for line in verify(exported, "none")[1])


def test_a_study_is_verified_where_it_lies(study, tmp_path, forked):
    shutil.copytree(study.parent, tmp_path / "results")
    words = ["job=verify", "study=s", "baseline=none"]
    assert forked.run(words, tmp_path).returncode == 0
    (tmp_path / "results" / "s" / "sweep.csv").unlink()  # as of a point that ran alone
    assert forked.run(words, tmp_path).returncode == 0
    own = next((tmp_path / "results" / "s").glob("mini-none*"))
    changed(own / "records.jsonl", '"score": 1.0', '"score": 0.0')
    done = forked.run(words, tmp_path)
    assert done.returncode == 1
    assert f"{own.name}: metrics.json says score = " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_points_of_earlier_versions_are_recounted_by_task(study, tmp_path):
    folder = shutil.copytree(next(study.glob("mini-none*")), tmp_path / "old")
    manifest = json.loads((folder / "run.json").read_text())
    every, _ = recount(folder)
    del manifest["tasks"]
    (folder / "run.json").write_text(json.dumps(manifest))
    count, faults = recount(folder)
    assert faults == []
    assert 100 < count < every


def test_bad_input_is_one_line(study, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for arguments, words in (
        ((tmp_path / "none", tmp_path / "out", "none"), "no point is complete"),
        ((study, tmp_path / "out", "none", ["begun-00000000"]), "no complete point begun-00000000; there are: mini-"),
        ((study, tmp_path / "mine", "none"), "holds something else"),
    ):
        with pytest.raises(ResultsError, match=words):
            export(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(ResultsError, match="neither an export nor a study"):
        verify(tmp_path, "none")
    part = export(study, tmp_path / "one", "none", [next(study.glob("mini-none*")).name])
    assert len([name for name in part if name.endswith("records.jsonl")]) == 1
