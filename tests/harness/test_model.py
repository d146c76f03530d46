"""The class that lmms-eval drives. Its interface is stood in for where lmms-eval is not installed."""

import importlib
import json
import os
import subprocess
import sys
import types
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from composed import composed
from conftest import numbered_frames
from toy_task import write_tasks
from videopool.config.build import build
from videopool.shapes.clips import write_mp4

REAL = find_spec("lmms_eval") is not None
SETTINGS = {"model": "mini", "pooling": "average", "frames": 2, "max_new_tokens": 2, "job.workers": 0}


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class GenerationResult:
    text: Any
    token_counts: TokenCounts | None = None


class LMMs:
    def __init__(self):
        self.task_dict = {}


@pytest.fixture
def model(monkeypatch, tmp_path, data_dir):
    """Makes the model for model arguments, in an empty folder."""
    if not REAL:
        modules = {name: types.ModuleType(name) for name in ("lmms_eval", "lmms_eval.api")}
        modules["lmms_eval.api.instance"] = types.ModuleType("instance")
        modules["lmms_eval.api.instance"].__dict__.update(GenerationResult=GenerationResult, TokenCounts=TokenCounts)
        modules["lmms_eval.api.model"] = types.ModuleType("model")
        modules["lmms_eval.api.model"].__dict__["lmms"] = LMMs
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("videopool.harness.model")
    yield lambda **settings: module.VideoPool(**{**SETTINGS, "data_dir": str(data_dir), **settings})
    if not REAL:
        del sys.modules["videopool.harness.model"]


@dataclass
class Instance:
    args: tuple


def ask(model, documents, text="how many ?", **kwargs):
    model.task_dict["t"] = {"test": documents}
    show = lambda doc: [doc["video"]]  # noqa: E731
    return [Instance((text, dict(kwargs), show, number, "t", "test")) for number in range(len(documents))]


@pytest.fixture
def documents(tmp_path):
    for name in ("a", "b"):
        write_mp4(tmp_path / f"{name}.mp4", numbered_frames(8, 96, 96))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    return [{"video": str(tmp_path / f"{name}.mp4"), "target": "red"} for name in ("a", "bad", "b", "a")]


def test_answers_with_tokens_cut_at_stop_texts(model, documents, tmp_path):
    point = model(**{"job.max_failed_fraction": 0.5})
    results = point.generate_until(ask(point, documents, max_new_tokens=4, until=["\n\n"]))
    assert results[1].text == ""
    assert results[1].token_counts is None
    assert results[0].text == results[3].text != ""
    # 144 tokens of a frame, the mean over two frames, and those of the text.
    assert 144 < results[0].token_counts.input_tokens < 170
    assert 0 < results[0].token_counts.output_tokens <= 4
    first = results[0].text.split()[0]
    (cut,) = point.generate_until(ask(point, documents[:1], max_new_tokens=4, until=[first]))
    assert cut.text == ""
    failed = [json.loads(path.read_text())["n_failed"] for path in Path("results/lmms_eval").glob("*/metrics.json")]
    assert sorted(failed) == [0, 1]


def test_losses_of_continuations_and_a_failed_clip_ends_it(model, documents):
    point = model(**{"job.max_failed_fraction": 0.5})
    good = [documents[0], documents[2]]
    asked = ask(point, good)
    requests = [
        Instance((one.args[0], target, *one.args[2:]))
        for one in asked
        for target in (" red", lambda doc: doc["target"], " blue")
    ]
    results = [result.text for result in point.loglikelihood(requests)]
    assert all(loss > 0 and isinstance(greedy, bool) for loss, greedy in results)
    assert results[0] == results[1] != results[2]  # a document's own target is the same text
    asked = ask(point, documents)
    requests = [Instance((one.args[0], target, *one.args[2:])) for one in asked for target in (" red", " blue")]
    with pytest.raises(SystemExit, match=r"1 of 4 questions have no answer.*t, document 1"):
        point.loglikelihood(requests)


def test_too_many_failed_clips_end_it_with_one_line(model, documents):
    point = model()
    with pytest.raises(SystemExit, match="1 of 4 samples could not be evaluated"):
        point.generate_until(ask(point, documents))


def answer(model, settings, documents):
    point = model(**settings)
    return point.generate_until(ask(point, documents))


def test_arguments(model, documents, tmp_path):
    assert model(tokens=20, pooling="vidcom2").config.pooling.tokens == 20
    for settings, words in (
        ({"pooling": "averag"}, "averag"),
        ({"point": "nowhere"}, "no folder of a point"),
        ({"frames": 0}, "frames"),
    ):
        with pytest.raises(SystemExit) as error:
            answer(model, settings, documents[:1])
        assert str(error.value).startswith("videopool: ")
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_the_settings_of_a_point_that_ran(model, documents):
    first = model(study="one")
    (expected,) = first.generate_until(ask(first, documents[:1]))
    (folder,) = Path("results/one").glob("*/run.json")
    module = sys.modules["videopool.harness.model"]
    again = module.VideoPool(point=str(folder.parent), study="two", max_new_tokens=2, device="cpu")
    assert again.config.pooling._target_ == first.config.pooling._target_
    assert again.generate_until(ask(again, documents[:1])) == [expected]
    names = [path.name for study in ("one", "two") for path in Path(f"results/{study}").glob("mini*")]
    assert names[0] == names[1]  # the same fingerprint
    with pytest.raises(SystemExit, match=r"pooling=.*says this already"):
        module.VideoPool(point=str(folder.parent), pooling="none")


def test_several_processes_and_rounds_are_refused(model, monkeypatch):
    with pytest.raises(SystemExit, match="stand alone"):
        model().generate_until_multi_round([])
    with pytest.raises(SystemExit, match="CUDA_VISIBLE_DEVICES"):
        model(device="cuda:1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="one process"):
        model()


@pytest.mark.skipif(not REAL, reason="lmms-eval is not installed: docs/lmms_eval.md")
def test_lmms_eval_itself_gives_the_answers_of_this_program(videopool, tmp_path, data_dir):
    """Multiple choice and written answers of local tasks, and the way back: samples as records."""
    assert "videopool" in {point.name for point in entry_points(group="lmms_eval.models")}
    small = ("benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=2")
    benchmark = build(composed(f"data_dir={data_dir}", *small), "benchmark")
    ids = write_tasks(benchmark, tmp_path / "tasks")
    common = ("pooling=adaptive_Tx3x3", "frames.num=2", "study=own", "logger=none", *small)
    videopool(*common, small=False)
    videopool(
        *common, "benchmark.scoring=generate", "benchmark.max_new_tokens=8", "prompt.answer_prefix=''", small=False
    )
    arguments = (
        f"model=mini,pooling=adaptive_Tx3x3,frames=2,study=asked,results_dir={tmp_path}/results,data_dir={data_dir}"
    )
    words = [
        "--model",
        "videopool",
        "--model_args",
        arguments,
        "--tasks",
        "toy_choice,toy_write",
        "--include_path",
        "tasks",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *words, "--log_samples", "--output_path", "logs"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    own = {}
    for folder in (tmp_path / "results/own").glob("mini*"):
        kind = "toy_write" if "-generate-" in folder.name else "toy_choice"
        own[kind] = {r["id"]: r for r in map(json.loads, (folder / "records.jsonl").read_text().splitlines())}
    for task, records in own.items():
        (file,) = tmp_path.glob(f"logs/*/*_samples_{task}.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(rows) == len(ids) == len(records)
        for row in rows:
            record = records[ids[row["doc_id"]]]
            if task == "toy_choice":
                losses = [float(loss) for loss, _ in row["filtered_resps"]]
                assert record["options"][losses.index(min(losses))] == record["prediction"]
                assert row["acc"] == record["score"]
            else:
                assert row["filtered_resps"] == record["prediction"]
        points = [path for path in (tmp_path / "results/asked").glob("mini*") if path.is_dir()]
        (point,) = (path for path in points if ("generate" in path.name) is (task == "toy_write"))
        videopool("job=import", f"job.point={point}", f"job.samples={file}", "study=imported", small=False)
    found = [json.loads(p.read_text())["score"] for p in (tmp_path / "results/imported").glob("*/metrics.json")]
    letters = [record["score"] for record in own["toy_choice"].values()]  # words are matched by lmms-eval's own rule
    assert len(found) == 2
    assert any(score == pytest.approx(sum(letters) / len(letters)) for score in found)
    videopool("job=report", "study=imported", small=False)
