"""job=report, and the report at the end of a multirun, as a user gets them."""

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from made_study import record, write_clips, write_point, write_study
from videopool.config.errors import ConfigError
from videopool.jobs.report import run as report
from videopool.reports.files import write_report, written_report
from videopool.reports.tables import shown
from videopool.results import PointFolder, ResultsError, fingerprint


def test_a_study_and_its_report(videopool, tmp_path):
    study = tmp_path / "results" / "r"
    words = ("-m", "experiment=quickstart", "pooling=average", "frames.num=1,4,8", "benchmark.limit=1", "study=r")
    done = videopool(*words, env={"VIDEOPOOL_FIGURES": "svg"})
    assert "sweep.csv, report.html, table.md, table.tex and 4 figures (SVG)" in done.stdout
    page = (study / "report.html").read_text()
    assert "how do pooling and frame count trade off when an image LLM reads a video" in page
    assert page.count("<article>") == 10
    assert page.count('<img src="data:image/jpeg;base64,') > 20
    assert "no picture" not in page
    assert page.count('<img src="data:image/svg+xml;base64,') == 4
    points = sorted(path.parent.name for path in study.glob("*/run.json"))
    clips = json.loads((study / points[0] / "clips.json").read_text())
    records = [json.loads(line) for line in (study / points[0] / "records.jsonl").read_text().splitlines()]
    assert clips.keys() == {record["clip"] for record in records}
    videopool("job=report", "study=r", "job.samples=1", "benchmark.limit=1", f"job.pair=[{points[1]},{points[0]}]")
    page = (study / "report.html").read_text()
    assert page.count("<article>") == 1
    assert 'class="first">A</b> average time, 4 frames' in page
    assert 'class="second">B</b> average time, 1 frame<' in page


def test_a_report_is_kept_until_something_changes(tmp_path):
    names = write_study(tmp_path)
    study = tmp_path / "results" / "made"
    folders = [str(study / name) for name in names.values()]
    assert written_report(study, "none", folders) is None
    files, table = write_report(study, "none")

    def kept(baseline="none"):
        return written_report(study, baseline, folders)

    found = kept()
    assert found is not None
    assert found[0] == files
    assert list(found[1].point) == list(table.point)
    shutil.move(study, tmp_path / "elsewhere")
    shutil.move(tmp_path / "elsewhere", study)
    assert kept() is not None
    assert kept("average time") is None
    for name, change in (
        ("report.html", os.remove),
        (f"{names['failed']}/failure.json", os.utime),  # it failed again
        (f"{names['partial']}/run.json", os.utime),  # it was begun again
        (f"{names['c']}/metrics.json", os.utime),
    ):
        write_report(study, "none")
        assert kept() is not None
        change(study / name)
        assert kept() is None, name


def test_points_of_other_kinds_leave_a_report_as_it_is(tmp_path):
    """Norms and trainings beside the points of a study are no rows of its table."""
    names = write_study(tmp_path)
    study = tmp_path / "results" / "made"
    folders = [str(study / name) for name in names.values()]
    write_report(study, "none")
    for name, kind in (("norms-mini-none", "measured"), ("mini-tuned-none", "training")):
        with PointFolder(study, name, fingerprint({"job": kind})) as folder:
            folder.write_manifest({kind: {"model": "mini"}, "identity": {"job": kind}})
            folder.write_metrics({"steps": 3})
        assert written_report(study, "none", folders) is not None, kind
    shutil.copytree(study / names["a"], study / "another")
    assert written_report(study, "none", folders) is None
    write_report(study, "none")
    assert written_report(study, "none", folders) is not None
    shutil.rmtree(study / "another")
    assert written_report(study, "none", folders) is None


@pytest.mark.parametrize("wrong", [{"pair": ["a"]}, {"pair": "a"}, {"pair": [1, 2]}, {"samples": -1}, {"samples": "x"}])
def test_wrong_settings_are_told(tmp_path, wrong):
    job = {"name": "report", "pair": None, "samples": 10, **wrong}
    config = OmegaConf.create({"job": job, "study": "none", "results_dir": str(tmp_path), "baseline": "none"})
    with pytest.raises(ConfigError, match=rf"^job\.{next(iter(wrong))}"):
        report(config)


SPOILT = ("=1+1", "+cmd", "-2", "@x", "[/b]", "[red]x", ":smile:", "a\\", "[bold")


@pytest.fixture
def spoilt(tmp_path):
    """A study whose poolings are called as no pooling should be."""
    clips = write_clips(tmp_path / "data")
    for place, name in enumerate(SPOILT):
        answers = [record(n, n != place, -0.1, [1]) for n in range(6)]
        write_point(tmp_path / "results" / "odd", answers, clips, pooling=name, visual_tokens=place + 1)
    return tmp_path / "results" / "odd"


def test_names_are_neither_markup_nor_formulas(spoilt):
    _, table = write_report(spoilt, "-2")
    said = Console(width=300, record=True, file=io.StringIO())
    said.print(shown(table, "[/odd]"))
    text = said.export_text()
    assert all(name in text for name in (*SPOILT, "[/odd]"))
    with (spoilt / "sweep.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    for cell in cells:
        if cell.startswith(("=", "+", "-", "@")):
            float(cell)  # a number
    assert {f"'{name}" for name in SPOILT[:4]} <= set(cells)
    kept = written_report(spoilt, "-2", [])
    assert kept is not None
    assert list(kept[1].pooling) == list(table.pooling)


def test_a_report_is_made_anew_whatever_the_clock_says(spoilt):
    """Its files are from the future, as after a clock was set back; a point is run again."""
    write_report(spoilt, "none")
    for path in spoilt.glob("*.*"):
        os.utime(path, (2e9, 2e9))
    assert written_report(spoilt, "none", []) is not None
    metrics = next(spoilt.glob("*/metrics.json"))
    os.utime(metrics, (1e9, 1e9))
    assert written_report(spoilt, "none", []) is None


def test_two_processes_write_one_report(spoilt):
    """At once, over and over: nobody fails, every file is whole, nothing is left over."""
    code = "import sys; from pathlib import Path; from videopool.files import write_text\n"
    code += "for _ in range(300): write_text(Path(sys.argv[1]), sys.argv[2] * 5000)"
    path = spoilt / "sweep.csv"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "ab"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 5000, "b" * 5000)
    assert not list(spoilt.glob(".*.part"))


def test_a_full_disk_leaves_nothing_behind(spoilt, monkeypatch):
    def full(path, text, **more):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ResultsError, match="odd cannot be written: No space left on device"):
        write_report(spoilt, "none")
    assert not [path for path in spoilt.rglob("*") if path.name.endswith(".part")]
