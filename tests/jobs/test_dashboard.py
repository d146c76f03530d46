"""job=dashboard: what it writes without an account, and what it sends to a server."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from omegaconf import OmegaConf

from videopool.jobs.dashboard import dashboard
from videopool.jobs.errors import ConfigError
from videopool.results import ResultsError

pytest.importorskip("wandb_workspaces")

KEY = "0123456789abcdef0123456789abcdef01234567"  # of nobody


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


class Server(ThreadingHTTPServer):
    """Answers the few questions that saving views asks, and keeps what was saved."""

    def __init__(self, refuses=False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.saved, self.keys, self.refuses = [], set(), refuses
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, query, variables):
        if "upsertView" in query:
            self.saved.append(variables)
            project = {"id": "1", "name": variables["projectName"], "entityName": variables["entityName"]}
            view = {key: variables[key] for key in ("type", "name", "displayName", "description", "spec")}
            return {"upsertView": {"view": {"id": "Vm1", "project": project, **view}, "inserted": True}}
        if "ProjectInternalId" in query:
            return {"project": None if self.refuses else {"id": "1", "internalId": "UHJvamVjdDox"}}
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": "somebody", "username": "somebody", "teams": {"edges": []}}}
        user = {"id": "1", "name": "n", "username": "somebody", "email": "", "admin": False, "flags": "{}"}
        user |= {"entity": "somebody", "deletedAt": None, "apiKeys": {"edges": []}, "teams": {"edges": []}}
        project = {"id": "1", "name": "videopool", "entityName": "somebody", "isBenchmark": False}
        project |= {"createdAt": "2026-01-01T00:00:00Z", "user": user, "__typename": "Project"}
        page = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
        return {"models": {"edges": [{"node": project}], "pageInfo": page}}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = {}
        if self.path == "/graphql":
            self.server.keys.add(self.headers.get("Authorization", ""))
            asked = json.loads(body)
            data = self.server.answer(asked["query"], asked.get("variables"))
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def with_account(tmp_path, url):
    return {"HOME": str(tmp_path / "home"), "WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}


def test_with_an_account_views_are_saved_on_the_server(videopool, study, tmp_path):
    server = Server()
    try:
        done = videopool("job=dashboard", "study=s", small=False, env=with_account(tmp_path, server.url))
    finally:
        server.shutdown()
    workspace, report = server.saved
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
    server = Server(refuses=True)
    try:
        done = videopool("job=dashboard", "study=s", small=False, check=1, env=with_account(tmp_path, server.url))
    finally:
        server.shutdown()
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


@pytest.mark.parametrize(("name", "online"), [("never", True), ("s", "maybe")])
def test_wrong_settings_are_told(study, name, online):
    job = {"online": online, "entity": None, "project": None}
    config = OmegaConf.create({"results_dir": str(study.parent), "study": name, "job": job})
    with pytest.raises((ConfigError, ResultsError), match=r"run the study first|job\.online='maybe'"):
        dashboard(config)


def test_the_extra_is_named_where_it_is_missing(videopool, study, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['wandb_workspaces'] = None\n")
    path = ":".join([str(tmp_path), *sys.path])
    done = videopool("job=dashboard", "study=s", small=False, check=1, env={"PYTHONPATH": path})
    assert "videopool[dashboard]" in done.stderr
    assert "internal error" not in done.stderr
