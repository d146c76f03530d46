"""job=dashboard: what it writes without an account, and what it sends to a server."""

import json
import sys

import pytest
from omegaconf import OmegaConf

from videopool.config.errors import ConfigError
from videopool.jobs.dashboard import run as dashboard
from videopool.results import ResultsError
from wandb_server import KEY, WandbServer

pytest.importorskip("wandb_workspaces")


@pytest.fixture
def study(tmp_path):
    """A finished study: what job=dashboard looks at, and a picture of each kind."""
    folder = tmp_path / "results" / "s"
    for number, alpha in enumerate((None, 4.0)):
        point = folder / f"point{number}"
        point.mkdir(parents=True)
        about = {"model": "m", "pooling": f"p{number}", "stage": "projector", "frames": 4, "visual_tokens": 36}
        about |= {"benchmark": "b", "split": "test", "prefill_gflops": 1.0, "lora_alpha": alpha}
        (point / "run.json").write_text(json.dumps({"fingerprint": "0", "point": about}))
        (point / "metrics.json").write_text(json.dumps({"score": 0.5, "n": 2, "n_failed": 0, "groups": {}}))
    (folder / "figures").mkdir()
    for name in ("score_by_frames_b.png", "norms_by_stage.png", "score_by_frames_b.svg"):
        (folder / "figures" / name).touch()
    return folder


def panels(sections):
    return {panel["viewType"]: panel["config"] for section in sections for panel in section["panels"]}


def check_workspace(spec):
    section = spec["section"]
    sections = section["panelBankConfig"]["sections"]
    assert [one["name"] for one in sections] == ["Score", "Settings", "By task", "Norms", "Figures"]
    found = panels(sections)
    line = found["Run History Line Plot"]
    assert (line["xAxis"], line["metrics"], line["groupBy"]) == ("frames", ["score"], "point.value.pooling")
    dots = found["Scatter Plot"]
    assert (dots["xAxis"], dots["yAxis"]) == ("summary:visual_tokens", "summary:score")
    axes = [column["accessor"] for column in found["Parallel Coordinates Plot"]["columns"]]
    assert axes[:3] == [f"config:point.value.{name}" for name in ("pooling", "frames", "lora_alpha")]
    assert axes[-1] == "summary:score"
    assert '"scores"' in json.dumps(sections[2]["panels"][0])
    media = {one["name"]: one["panels"][0]["config"]["mediaKeys"] for one in sections[3:]}
    assert media == {"Norms": ["figures/norms_by_stage"], "Figures": ["figures/score_by_frames_b"]}
    (runs,) = section["runSets"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"]["name"], only["op"], only["value"]) == ("group", "=", "s")


def check_report(spec):
    headings = [block["children"][0]["text"] for block in spec["blocks"] if block["type"] == "heading"]
    assert headings == ["Score", "Settings", "By task", "Norms", "Figures"]
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    chosen = []
    for grid in grids:
        (runs,) = grid["runSets"]
        group, job = runs["filters"]["filters"]
        assert (group["key"]["name"], group["value"], job["key"]["name"]) == ("group", "s", "jobType")
        chosen.append(f"{job['op']}{job['value']}")
    assert chosen == ["!=report"] * 3 + ["=report"] * 2
    first, second = grids[0]["panelBankSectionConfig"]["panels"]
    assert first["layout"]["x"] + first["layout"]["w"] <= second["layout"]["x"]


def test_without_an_account_files_are_written(videopool, study, tmp_path):
    words = ("job=dashboard", "study=s", "job.project=mine")
    done = videopool(*words, small=False, env={"HOME": str(tmp_path), "WANDB_API_KEY": "", "NETRC": "/dev/null"})
    assert "nobody is logged in" in done.stdout
    workspace = json.loads((study / "dashboard" / "workspace.json").read_text())
    report = json.loads((study / "dashboard" / "report.json").read_text())
    assert workspace["project"] == report["project"]["name"] == "mine"
    check_workspace(workspace["spec"])
    check_report(report["spec"])


def test_with_an_account_views_are_saved_on_the_server(videopool, study, tmp_path):
    with WandbServer() as server:
        done = videopool("job=dashboard", "study=s", small=False, env=server.environment(tmp_path / "home"))
    workspace, report = server.views
    for view, kind in ((workspace, "project-view"), (report, "runs")):
        assert (view["type"], view["entityName"], view["projectName"]) == (kind, "somebody", "videopool")
        assert view["displayName"] == "VideoPool: s"
    check_workspace(json.loads(workspace["spec"]))
    check_report(json.loads(report["spec"]))
    assert f"{server.url}/somebody/videopool" in done.stdout
    assert server.keys, "the server was asked with credentials"
    assert KEY not in done.stdout + done.stderr
    assert not (study / "dashboard").exists()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_server_that_refuses_is_told_in_a_line(videopool, study, tmp_path):
    with WandbServer(project=False) as server:
        env = server.environment(tmp_path / "home")
        done = videopool("job=dashboard", "study=s", small=False, check=1, env=env)
    (line,) = done.stderr.splitlines()
    assert "somebody/videopool" in line
    assert "wandb sync" in line
    assert "internal error" not in line


def test_a_key_that_is_none_is_told_without_it(videopool, study):
    done = videopool("job=dashboard", "study=s", small=False, check=1, env={"WANDB_API_KEY": "tooshort"})
    (line,) = done.stderr.splitlines()
    assert "does not take the credentials" in line
    assert "tooshort" not in line
    assert "internal error" not in line


def asked(study, name="s", online=True):
    job = {"online": online, "entity": None, "project": None}
    return OmegaConf.create({"results_dir": str(study.parent), "study": name, "job": job, "logger": {"name": "none"}})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "never"}, "run the study first"),
        ({"online": "maybe"}, "job.online='maybe'"),
        ({}, "say job.project="),
    ],
)
def test_wrong_settings_are_told(study, settings, expected):
    with pytest.raises((ConfigError, ResultsError), match=expected):
        dashboard(asked(study, **settings))


def test_the_extra_is_named_where_it_is_missing(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ConfigError, match=r"pip install 'videopool\[dashboard\]'"):
        dashboard(asked(study))
