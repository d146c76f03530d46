"""Points that are not complete, beside those that are: reasons, ways out, exit codes, and what the page says."""

import csv
import json
import shlex
import shutil

import pytest

from made_study import write_study
from videopool.reports.files import write_report, written_report

POINTS = ("-m", "pooling=average,none", "frames.num=2", "benchmark.limit=2")


@pytest.fixture
def stale(videopool, tmp_path):
    """A study of two complete points, and a partial one of another setting with the name of one of them."""
    study = tmp_path / "results" / "s t"
    videopool(*POINTS, "study=s t")
    done = {path.parent for path in study.glob("*/run.json")}
    videopool("pooling=average", "frames.num=2", "benchmark.limit=3", "study=s t")
    (point,) = {path.parent for path in study.glob("*/run.json")} - done
    (point / "metrics.json").unlink()
    records = (point / "records.jsonl").read_text().splitlines(keepends=True)
    (point / "records.jsonl").write_text("".join(records[:5]))
    return study, point, len(records)


def test_a_stale_point_is_told_and_can_be_dropped(videopool, stale, tmp_path):
    study, point, total = stale
    done = videopool("job=report", "study=s t")
    assert "done  report of s t: 2 of 3 points; wrote" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("not complete: ")]
    assert line.startswith(f"not complete: {point.name}: stopped at 5 of {total} samples, begun on 20")
    assert "another setting of the same name: benchmark.limit=3" in line
    assert "finish it: videopool" in line
    finish, drop = line.partition("finish it: ")[2].split("; drop it: ")
    assert shlex.split(drop) == ["rm", "-r", str(point)]
    page = (study / "report.html").read_text()
    for text in (
        "stopped at 5 of",
        "The study is partly complete: 2 of 3 points; 1 not finished.",
        "benchmark.limit=2",
    ):
        assert text in page
    with (study / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["setting"] for row in rows if row["pooling"] == "average time"} == {
        "benchmark.limit=2",
        "benchmark.limit=3",
    }
    assert not any(row["same_map_as"] for row in rows)
    # The sweep's own end is judged by its own points.
    assert "2 of 2 points complete" in videopool(*POINTS, "study=s t").stdout
    again = videopool(*shlex.split(finish)[1:])
    assert "FAILED" not in again.stderr
    shutil.rmtree(point)
    assert "report of s t: 2 points; wrote" in videopool("job=report", "study=s t").stdout
    assert "partly" not in (study / "report.html").read_text()


def test_a_failed_point_and_a_study_of_nothing(videopool, tmp_path):
    names = write_study(tmp_path)
    study = tmp_path / "results" / "made"
    done = videopool("job=report", "study=made", env={"VIDEOPOOL_FIGURES": "svg"})
    assert f"not complete: {names['failed']}: failed: no clip:" in done.stdout
    assert f"not complete: {names['partial']}: stopped at 0 samples" in done.stdout
    page = (study / "report.html").read_text()
    for text in ("<code>videopool ", " job=report study=made<", "How to read this", 'href="sweep.csv"', "figures/"):
        assert text in page
    for letter in "abc":
        (study / names[letter] / "metrics.json").unlink()
    none = videopool("job=report", "study=made", check=1)
    assert "FAILED  report of made: no point is complete; wrote" in none.stderr
    missing = videopool("job=report", "study=nothing", check=1)
    assert missing.stderr.strip().endswith("there is no study " + str(tmp_path / "results" / "nothing"))
    assert "writing the report" not in missing.stdout


def test_a_report_of_another_pair_is_made_anew(tmp_path):
    names = write_study(tmp_path)
    study = tmp_path / "results" / "made"
    pair = [names["a"], names["c"]]
    write_report(study, "none", pair, 3)
    assert written_report(study, "none", [], pair=pair, samples=3) is not None
    assert written_report(study, "none", []) is None
    assert written_report(study, "none", [], pair=pair) is None
    write_report(study, "none")
    assert written_report(study, "none", []) is not None
    assert json.loads((study / ".report.json").read_text())["pair"] is None
