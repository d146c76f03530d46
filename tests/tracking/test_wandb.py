"""W&B runs, read back from the files they leave; and points that outlive W&B's failures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from videopool.config.errors import ConfigError
from videopool.tracking.point import point_run, predictions_table, run_name
from videopool.tracking.run import telling, wandb_run
from wandb_server import KEY, WandbServer

pytestmark = pytest.mark.usefixtures("sooner")
SMALL = ("benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", "logger=wandb", "frames.num=1")


def wandb_records(file):
    """The records of a .wandb file, by type."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = {}
    for line in told.stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


class Run:
    """What one offline run left."""

    def __init__(self, folder):
        (file,) = folder.glob("run-*.wandb")
        self.files = folder / "files"
        records = wandb_records(file)
        (self.about,) = records["run"]
        self.config = self.about["config"]["update"]
        self.summary = {k: v for record in records["summary"] for k, v in record.get("update", {}).items()}
        self.step_metrics = {m.get("name", m.get("glob_name")): m.get("step_metric") for m in records.get("metric", [])}
        self.exit_code = records["exit"][0]["exit_code"]

    def table(self, name):
        content = json.loads((self.files / self.summary[f"{name}.path"]).read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_dir, forked):
    """A multirun of two points in an environment that names a key, and a run that all points would become."""
    root = tmp_path_factory.mktemp("wandb")
    words = [f"results_dir={root}/results", f"data_dir={data_dir}", "study=w", "pooling=none,average", *SMALL]
    env = {"WANDB_API_KEY": KEY, "WANDB_RUN_ID": "allinone", "HOME": str(root / "home"), "VIDEOPOOL_FIGURES": "png"}
    done = forked.run(["-m", *words], root, env=env)
    assert done.returncode == 0, done.stderr
    return root / "results" / "w"


@pytest.fixture(scope="module")
def runs(study):
    found = [Run(folder) for folder in sorted((study / "wandb").glob("offline-run-*"))]
    return {run.config["point"]["name"] if "point" in run.config else "report": run for run in found}


def read(path):
    return json.loads(path.read_text())


def test_each_point_has_a_run_of_its_own(study, runs):
    points = {p.parent.name for p in study.glob("*/run.json")}
    assert len(points) == 2
    assert set(runs) == points | {"report"}
    assert len({run.about["run_id"] for run in runs.values()}) == 3
    assert {run.about["run_group"] for run in runs.values()} == {"w"}
    assert {run.exit_code for run in runs.values()} == {0}
    for name in points:
        about, config = runs[name].about, runs[name].config
        manifest = read(study / name / "run.json")
        pooling = "none" if "none" in name else "average"
        assert about["display_name"].split()[:2] == [f"pooling={pooling}", "frames.num=1"]
        assert about["job_type"] == manifest["config"]["job"]["name"] == "evaluate"
        assert {key: config[key] for key in manifest["config"]} == manifest["config"]
        assert config["point"]["pooling"] == manifest["point"]["pooling"]
        assert config["point"]["visual_tokens"] == 144


def test_scores_costs_and_tables_are_the_points(study, runs):
    for name in set(runs) - {"report"}:
        run, metrics = runs[name], read(study / name / "metrics.json")
        for key in ("score", "ci_low", "ci_high", "n", "n_failed", "seconds_per_sample"):
            assert run.summary[key] == pytest.approx(metrics[key])
        assert (run.summary["frames"], run.summary["visual_tokens"]) == (1, 144)
        assert run.summary["prefill_gflops"] == pytest.approx(run.config["point"]["prefill_gflops"])
        for kind, spent in metrics["seconds"].items():
            assert run.summary[f"seconds/{kind}"] == pytest.approx(spent)
        for plural in ("groups", "tasks"):
            for one, values in metrics[plural].items():
                assert run.summary[f"{plural}/{one}"] == pytest.approx(values["score"])
        assert run.step_metrics["score"] == run.step_metrics["tasks/*"] == "frames"
        assert "visual_tokens" in run.step_metrics
        scores = {(row["kind"], row["name"]): row for row in run.table("scores")}
        assert len(scores) == len(metrics["tasks"]) + len(metrics["groups"])
        image = scores["group", "image"]
        assert (image["score"], image["chance"], image["n"]) == (metrics["score"], metrics["chance"], metrics["n"])
        records = [json.loads(line) for line in (study / name / "records.jsonl").read_text().splitlines()]
        rows = run.table("predictions")
        assert len(rows) == len(records) == 17
        for row, record in zip(rows, records, strict=True):
            assert row == {key: record[key] for key in row}
            assert {"question", "answer", "prediction", "score", "status"} <= set(row)


def test_the_study_has_a_run_with_its_table_and_figures(study, runs):
    run = runs["report"]
    assert run.about["job_type"] == "report"
    rows = run.table("sweep")
    written = pd.read_csv(study / "sweep.csv")
    assert [row["point"] for row in rows] == list(written.point)
    assert [row["score"] for row in rows] == pytest.approx(list(written.score))
    assert {row["lora_alpha"] for row in rows} == {None}, "what is missing is not a number"
    figures = list((study / "figures").glob("*.png"))
    assert figures
    for figure in figures:
        assert run.summary[f"figures/{figure.stem}._type"] == "image-file"
        assert (run.files / run.summary[f"figures/{figure.stem}.path"]).read_bytes() == figure.read_bytes()


def test_no_file_holds_the_key(study, runs):
    files = [path for path in study.parents[1].rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any("staging" in path.parts for path in files), "tables lie with their study, not in the home folder"
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path


def test_runs_are_uploaded_as_they_are(study, runs, tmp_path):
    folders = sorted((study / "wandb").glob("offline-run-*"))
    with WandbServer() as server:
        command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
        env = {**os.environ, **server.environment(tmp_path)}
        subprocess.run(command, check=True, capture_output=True, timeout=60, env=env)
    assert set(server.runs) == {run.about["run_id"] for run in runs.values()}
    for run in runs.values():
        told = server.runs[run.about["run_id"]]
        about = (told["groupName"], told["jobType"], told["displayName"])
        assert about == tuple(run.about[key] for key in ("run_group", "job_type", "display_name"))
        for file in (run.files / "media").rglob("*.*"):
            assert server.files[str(file.relative_to(run.files))] == file.read_bytes()


def test_names_say_what_was_overridden():
    words = ["seed=3", "study=s", "frames.num=4", "results_dir=/x", "experiment=quickstart", "+pooling.every=2"]
    words += ["job=evaluate", "logger.mode=online", "features=disk", "benchmark.root=/clips", "job.reader=decord"]
    assert run_name(words, "folder") == "+pooling.every=2 frames.num=4 seed=3 job.reader=decord"
    assert run_name(["study=s"], "folder") == run_name([f"model.source={'x' * 200}"], "folder") == "folder"


def test_columns_of_judges_stand_where_records_have_them():
    plain = {"id": "1", "clip": "c", "task": "", "question": "q", "answer": "a", "status": "ok", "frame_indices": [1]}
    judged = {**plain, "id": "2", "prediction": "p", "score": 1.0, "verdict": "yes", "judge_grade": 4}
    failed = {**plain, "id": "3", "status": "unreadable_video", "reason": "gone", "prediction": None, "score": None}
    assert predictions_table([plain])["columns"][-1] == "status"
    table = predictions_table([judged, failed])
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert table["columns"][-3:] == ["verdict", "judge_grade", "reason"]
    assert (rows[0]["verdict"], rows[0]["judge_grade"], rows[0]["reason"]) == ("yes", 4, None)
    assert (rows[1]["score"], rows[1]["reason"]) == (None, "gone")


def logger(**changes):
    settings = {"name": "wandb", "mode": "offline", "project": "p", "entity": None, "predictions": 5, **changes}
    return OmegaConf.create({"study": "k", "job": {"name": "evaluate"}, "logger": settings})


@pytest.mark.parametrize("changes", [{"predictions": -1}, {"predictions": "all"}, {"mode": "loud"}, {"name": "other"}])
def test_wrong_settings_are_told(tmp_path, changes):
    with (
        pytest.raises(ConfigError, match=r"logger"),
        wandb_run(logger(**changes), tmp_path, "evaluate", "n", {})
        if "predictions" not in changes
        else point_run(logger(**changes), tmp_path / "point", {}),
    ):
        pass
    assert not (tmp_path / "wandb").exists()


def test_a_point_does_not_need_wandb(videopool, tmp_path):
    """A disk of 300 kB, nearly full: W&B can begin its run, but not write its tables."""
    folder = tmp_path / "results" / "full" / "wandb"
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", folder], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        (folder / "other").write_bytes(bytes(270_000))
        done = videopool("study=full", *SMALL)
    finally:
        subprocess.run(["umount", folder], check=True)
    (metrics,) = (tmp_path / "results" / "full").glob("*/metrics.json")
    assert read(metrics)["n"] == 2
    assert "done" in done.stdout
    assert "videopool: W&B could not log the tables" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_costs_the_run_only(tmp_path, capsys):
    (tmp_path / "wandb").touch()
    with point_run(logger(), tmp_path / "point", {}) as run:
        run.finish_point({"score": 1.0}, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("videopool: W&B could not open a run")
    assert str(tmp_path / "wandb") in line


def services():
    """Process ids of the W&B services that this process started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"wandb-core" in (folder / "cmdline").read_bytes():
                yield int(folder.name)
        except OSError:  # it has ended
            continue


def lose_the_service(folder):
    """What test_a_lost_service_costs_one_run runs, in a process of its own."""
    with wandb_run(logger(), folder, "evaluate", "first", {}) as run:
        assert run is not None
        for number in list(services()):
            os.kill(number, signal.SIGKILL)
        time.sleep(0.3)
        with telling("log"):
            run.log({"score": 1})
    with wandb_run(logger(), folder, "evaluate", "second", {}) as run:
        run.log({"score": 0.5})
    print("went on")


def in_a_process(function, folder, **env):
    code = f"import test_wandb; from pathlib import Path; test_wandb.{function.__name__}(Path({str(folder)!r}))"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env={**clean, "PYTHONPATH": path, "HOME": str(folder / "home"), **env},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="finds the service in /proc")
def test_a_lost_service_costs_one_run(tmp_path):
    done = in_a_process(lose_the_service, tmp_path)
    assert done.stdout.strip() == "went on"
    assert "W&B could not finish the run" in done.stderr
    assert "Traceback" not in done.stderr
    found = [wandb_records(file) for file in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")]
    assert len(found) == 2
    (whole,) = [records for records in found if "exit" in records]
    assert whole["run"][0]["display_name"] == "second"
    assert 0.5 in [record.get("update", {}).get("score") for record in whole["summary"]]


def go_online(folder):
    """What the test below runs, in a process of its own."""
    for name in ("first", "second"):
        with wandb_run(logger(mode="online"), folder, "evaluate", name, {}) as run:
            run.log({"score": 1})


def test_without_an_account_runs_are_kept_here(tmp_path):
    done = in_a_process(go_online, tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("videopool: W&B is not online (nobody is logged in)")
    assert "wandb sync" in line
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_a_training_run_is_seen_as_it_goes_and_whole_after_it_went_on(tmp_path, data_dir, forked):
    """Two attempts, the first stopped behind some step: the second one's run has all steps, each once, as the log."""
    words = [
        "job=finetune", "job.evaluate=false", "frames.num=2", "pooling=adaptive_Tx3x3", "job.workers=0",
        "trainer.accelerator=cpu", "training_data.sources.shapes.clips=60", "training_data.sources.shapes.per_task=8",
        "training.global_batch=1", "training.micro_batch=1", "training.lora.rank=4", "training.steps=4",
        "training.validation.every=2", "study=t", f"results_dir={tmp_path}/results", f"data_dir={data_dir}",
    ]  # fmt: skip
    stopping = """
import sys
from videopool.training import loop as training_run
before = training_run.StepCallback.on_train_batch_end
def then_ask(self, *more):
    if more[1].progress.step == 2:
        self.stop.ask()
    before(self, *more)
training_run.StepCallback.on_train_batch_end = then_ask
from videopool.app import main
main()
"""
    (tmp_path / "stopping.py").write_text(stopping)
    first = subprocess.run(
        [sys.executable, tmp_path / "stopping.py", *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert first.returncode != 0
    assert "2 of 4 steps" in first.stdout + first.stderr
    second = forked.run(words, tmp_path)
    assert second.returncode == 0, second.stderr
    study = tmp_path / "results" / "t"
    (log,) = study.glob("*/log.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    steps = []
    for folder in sorted((study / "wandb").glob("offline-run-*")):
        (file,) = folder.glob("run-*.wandb")
        records = wandb_records(file)
        assert records["run"][0]["job_type"] == "finetune"
        history = [record["item"] for record in records["history"]]
        steps.append([told["step"] for told in history if "train/loss" in told])
    assert steps == [[1, 2], [1, 2, 3, 4]]
    assert [told["train/loss"] for told in history if "train/loss" in told] == pytest.approx(
        losses := _of(rows, "loss")
    )
    assert len(set(losses)) == 4
    for name, key in (
        ("validation/loss", "validation_loss"),
        ("visual_tokens/median_norm", "visual_norm_median"),
        ("visual_tokens/max_over_median_norm", "visual_norm_max_over_median"),
    ):
        assert [told[name] for told in history if name in told] == pytest.approx(_of(rows, key))
        assert len(_of(rows, key)) == 2
    assert min(_of(rows, "visual_norm_max_over_median")) > 1
    speeds = [
        told["train/labelled_tokens_per_second"] for told in history if "train/labelled_tokens_per_second" in told
    ]
    expected = [row["tokens"] / row["step_seconds"] for row in rows if "loss" in row]
    assert speeds == pytest.approx(expected)


def _of(rows, key):
    return [row[key] for row in rows if key in row]
