"""The program as users run it: help, wrong words, single points, studies."""

import csv
import json
from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from conftest import SMALL
from videopool.paths import shipped

SINGLE = ("pooling=adaptive", "pooling.shape=[2,6,6]", "frames.num=2", "study=one", "benchmark.limit=null")


def points(tmp_path, study):
    return sorted(p.parent for p in (tmp_path / "results" / study).glob("*/run.json"))


def rows(tmp_path, study):
    with (tmp_path / "results" / study / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_version_and_help(videopool):
    import videopool as package
    from videopool.app import main

    assert main is not None
    help_text = videopool("--help", small=False).stdout
    for word in ("evaluate", "report", "pretrain", "pooling", "frames.num=16", "quickstart", "study="):
        assert word in help_text
    assert package.__version__.count(".") == 2


def test_version_alone(capsys, monkeypatch):
    import videopool as package
    from videopool.app import main

    monkeypatch.setattr("sys.argv", ["videopool", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out == f"videopool {package.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pooling=adaptve"], ["adaptve", "did you mean adaptive"]),
        (["job=fly"], ["there is no job fly", "videopool help job"]),
        (["nonsense=1"], ["nonsense"]),
        (["pooling.size=3"], ["size"]),
        (["pooling=adaptive", "pooling.shape=[0,6,6]"], ["three positive integers", "[0, 6, 6]"]),
        (["pooling=adaptive", "pooling.shape=[6,6]"], ["three positive integers"]),
        (["pooling=adaptive", "pooling.shape=[-1,6,6]"], ["three positive integers"]),
        (["pooling.stage=llm"], ["pooling.stage='llm'", "projector, encoder"]),
        (["pooling._target_=no.such.Pooling"], ["no.such.Pooling"]),
        (["pooling._target_=builtins.dict"], ["dict is not a videopool.pooling.Pooling"]),
        (["frames.num=0"], ["frames.num must be a positive integer, got 0"]),
        (["frames.num=many"], ["frames.num=many: give a number"]),
        (["benchmark=mvbench", "benchmark.root=nowhere"], ["nowhere", "there is no folder"]),
        (["benchmark=clips"], ["benchmark.root"]),
        (["benchmark.scoring=guess"], ["likelihood, cloze, generate"]),
        (["model=local", "model.source=./nowhere"], ["./nowhere", "no folder"]),
        (["job.max_failed_fraction=2"], ["job.max_failed_fraction must be a number in 0..1"]),
        (["results_dir=/proc/none", "study=x"], ["/proc/none", "results_dir"]),
        (["job=report", "study=never"], ["there is no study"]),
        (["job=report", "study=7"], ["there is no study"]),
        (["logger.mode=loud"], ["offline, online"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_words_end_in_a_clear_line(videopool, words, expected):
    small = not any(word.startswith("benchmark=") for word in words)
    extra = ["logger=wandb"] if words[0].startswith("logger.") else []
    done = videopool(*extra, *words, check=None, small=small)
    assert done.returncode not in (0, 3)
    told = done.stderr + done.stdout
    for word in expected:
        assert word in told, told
    assert "Traceback" not in told
    assert "internal error" not in told


def test_one_point_its_files_and_the_second_run(videopool, tmp_path):
    first = videopool(*SINGLE)
    assert "done" in first.stdout
    assert "chance" in first.stdout
    (folder,) = points(tmp_path, "one")
    assert folder.name.startswith("mini-adaptive-2x6x6-f2-")
    manifest = json.loads((folder / "run.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert len(records) == 4 * 8
    assert {r["status"] for r in records} == {"ok"}
    assert {len(r["frame_indices"]) for r in records} == {2}
    assert {r["visual_tokens"] for r in records} == {72} == {manifest["point"]["visual_tokens"]}
    assert manifest["fingerprint"][:8] == folder.name[-8:]
    assert manifest["config"]["pooling"]["shape"] == [2, 6, 6]
    assert manifest["point"]["windows"]["frames"] == [[0, 1], [1, 2]]
    assert {"python", "torch", "videopool"} <= set(manifest["versions"])
    scored = [r for r in records if r["task"] in manifest["identity"]["headline"]]
    assert metrics["score"] == pytest.approx(sum(r["score"] for r in scored) / len(scored))
    assert metrics["n"] == len(scored) == 2 * 8
    assert metrics["ci_low"] < metrics["score"] < metrics["ci_high"]
    assert {"decode", "vision", "prefill"} <= set(metrics["seconds"])
    of_model = metrics["seconds"]["prefill"] + metrics["seconds"]["questions"]
    assert metrics["seconds_per_sample"] * len(records) == pytest.approx(of_model, abs=0.01)
    assert metrics["shared_seconds"] >= metrics["seconds"]["vision"]
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.name != "lock"}
    assert "kept" in videopool(*SINGLE).stdout
    assert before == {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.name != "lock"}


def test_generated_answers_are_parsed(videopool, tmp_path):
    videopool("benchmark.scoring=generate", "frames.num=1", "study=generate", "benchmark.limit=2")
    (folder,) = points(tmp_path, "generate")
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(records) == 4 * 2
    for record in records:
        assert record["score"] == float(record["parsed"] == record["answer"])
        assert record["parsed"] in [*record["options"], None]
    image = [r for r in records if r["task"] in json.loads((folder / "run.json").read_text())["identity"]["headline"]]
    assert metrics["n_unparsed"] == sum(r["parsed"] is None for r in image)


@pytest.mark.parametrize(
    ("launcher", "drawn"), [("basic", {"png", "svg", "pdf"}), ("joblib", {"svg"})], ids=["basic", "joblib"]
)
def test_a_study_with_a_bad_point(videopool, tmp_path, launcher, drawn):
    words = ["-m", "pooling=none,average", "frames.num=1,2,0", "study=s", "benchmark.limit=1"]
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    done = videopool(*words, check=1, env={"VIDEOPOOL_FIGURES": ",".join(drawn)})
    assert done.stderr.count("FAILED") == 2
    assert "frames.num must be a positive integer, got 0" in done.stderr
    assert "Traceback" not in done.stderr
    table = rows(tmp_path, "s")
    assert [(r["pooling"], r["frames"], r["visual_tokens"]) for r in table] == [
        ("none", "1", "144"), ("none", "2", "288"),
        ("average time", "1", "144"), ("average time", "2", "144"),
    ]  # fmt: skip
    required = {"point", "fingerprint", "status", "model", "pooling", "stage", "frames", "visual_tokens"}
    required |= {"benchmark", "split", "n", "n_failed", "score", "ci_low", "ci_high"}
    required |= {"prefill_gflops", "seconds_per_sample"}
    assert required <= set(table[0])
    assert {r["status"] for r in table} == {"complete"}
    assert {r["n"] for r in table} == {"2"}
    assert table[2]["same_map_as"] == table[0]["point"]  # the mean over one frame is that frame
    assert table[3]["same_map_as"] == ""
    assert table[2]["difference"] == "0.0"
    assert table[3]["baseline"] == table[1]["point"]
    figures = list((tmp_path / "results" / "s" / "figures").iterdir())
    assert {f.suffix[1:] for f in figures} == drawn
    assert all(f.stat().st_size > 5000 for f in figures)


def test_points_of_a_sweep_have_the_configuration_they_would_have_alone(videopool, tmp_path):
    """Overrides of the root, of groups and of their keys; values of one point must not reach another."""
    sweep = ["seed=0,1", "pooling=none,adaptive_1x6x6", "frames.num=1,2"]
    fixed = ["job.workers=0", "study=many", "+benchmark.tasks=[existence]", "benchmark.limit=1"]
    videopool("-m", *sweep, *fixed)
    found = [json.loads(path.read_text())["config"] for path in (tmp_path / "results" / "many").glob("*/run.json")]
    GlobalHydra.instance().clear()
    own = [f"results_dir={tmp_path}/results", f"data_dir={found[0]['data_dir']}", *SMALL, *fixed]
    with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
        wanted = [
            OmegaConf.to_container(compose("config", overrides=[*own, *chosen]), resolve=True)
            for chosen in product(*([f"{key}={value}" for value in values.split(",")] for key, values in
                                    (word.split("=") for word in sweep)))
        ]  # fmt: skip
    GlobalHydra.instance().clear()
    assert len(found) == len(wanted) == 8
    assert all(config in found for config in wanted)


def test_batch_size_workers_and_store_change_nothing(videopool, tmp_path):
    common = ["pooling=adaptive_4x6x6", "frames.num=4", "benchmark.limit=3"]
    common.append("+benchmark.tasks=[existence,object_count,scene,event_order]")
    settings = {
        "a": [],
        "b": ["job.max_clips=1", "job.workers=0", "features=none"],
        "c": ["job.max_visual_tokens=300", "job.workers=1"],
    }
    found = {}
    for study, words in settings.items():
        videopool(*common, *words, f"study={study}")
        (folder,) = points(tmp_path, study)
        lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        found[study] = (folder.name, {r["id"]: (r["prediction"], r["score"], r["frame_indices"]) for r in lines})
    assert found["a"] == found["b"] == found["c"]


def test_a_users_own_pooling_from_outside(videopool, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from videopool.pooling import Pooling\n"
        "class FirstFrame(Pooling):\n"
        "    def __init__(self, every=1):\n"
        "        super().__init__()\n"
        "        self.every = every\n"
        "    def forward(self, grid, context=None):\n"
        "        return grid[:, 0, :: self.every].flatten(1, 2)\n"
        "    def num_tokens(self, frames, height, width):\n"
        "        return -(-height // self.every) * width\n"
    )
    words = ["pooling._target_=mine.FirstFrame", "+pooling.every=2", "frames.num=2", "study=own", "benchmark.limit=2"]
    videopool(*words)
    (folder,) = points(tmp_path, "own")
    assert json.loads((folder / "run.json").read_text())["point"]["visual_tokens"] == 72
    assert folder.name.startswith("mini-firstframe-f2")


def test_installed_configuration_is_found_from_anywhere(videopool, tmp_path):
    done = videopool("--cfg", "job", "experiment=quickstart")
    assert "study: quickstart" in done.stdout
    assert not (Path(tmp_path) / "outputs").exists()


def test_a_configuration_of_many_points_is_asked_for_point_by_point(videopool):
    told = videopool("--multirun", "--cfg", "job", "frames.num=1,2", check=2).stderr
    assert "say it without --multirun" in told
    assert "Traceback" not in told
