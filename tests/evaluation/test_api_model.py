"""Models behind an API as baselines, against a real server on this machine."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from chat_server import KEY, RIGHT, Answer, chat_server, completion
from conftest import numbered_frames, read_number
from videopool.chat import ChatError
from videopool.config.errors import ConfigError
from videopool.evaluation.run import evaluate
from videopool.jobs.inspect import run as inspect_model
from videopool.jobs.speed import run as speed
from videopool.paths import shipped
from videopool.planning.cost import cost_of, show_plan
from videopool.reports.files import write_report
from videopool.results import PointFailed
from videopool.shapes.clips import write_mp4

FRAMES, HEIGHT, WIDTH = 12, 64, 96


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three clips whose frames show their number; two multiple-choice questions and an open one about each."""
    folder = tmp_path_factory.mktemp("clips")
    lines = ["video_name,question,answer,a0,a1,a2"]
    for n in range(3):
        write_mp4(folder / f"v_{n}.mp4", numbered_frames(FRAMES, HEIGHT, WIDTH))
        lines += [f"v_{n},which of {n}{k}?,milk,water,milk,oil" for k in range(2)] + [f"v_{n},what is it?,a {n},,,"]
    (folder / "qa.csv").write_text("\n".join(lines) + "\n")
    return folder


def words(world, tmp_path, *more):
    return [f"results_dir={tmp_path}/results", "benchmark=qa_sheet", f"benchmark.root={world}",
            f"benchmark.annotations={world / 'qa.csv'}", "benchmark.scoring=generate", "logger=none", "model=api",
            "frames=interior", "frames.num=6", "study=s", *more]  # fmt: skip


@pytest.fixture
def point(world, tmp_path, monkeypatch):
    """Runs one point in this process; gives its folder."""
    monkeypatch.setenv("API_KEY", KEY)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
        yield lambda *more: Path(evaluate(compose("config", overrides=words(world, tmp_path, *more))).folder)
    GlobalHydra.instance().clear()


def served_by(server, **more):
    settings = {"base_url": server.base_url, "model": "seer", "key_env": "API_KEY", "backoff": 0.01, **more}
    return [f"model.{key}={value}" for key, value in settings.items()]


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def images(body):
    parts = body["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in urls]


def milk(number, body):
    return "(B) milk"


def test_a_grid_of_the_sampled_frames_and_the_plain_question(point):
    with chat_server(milk) as server:
        folder = point(*served_by(server, format="png", concurrency=2))
        assert 1 <= server.most_at_once <= 2
    found = {record["question"]: record for record in records(folder) if record["clip"] == "v_0"}
    assert len(server.asked) == 9
    body = next(body for body in server.asked if "which of 00?" in body["messages"][0]["content"][-1]["text"])
    (grid,) = images(body)
    assert grid.shape == (3 * HEIGHT, 2 * WIDTH, 3)
    tiles = grid.reshape(3, HEIGHT, 2, WIDTH, 3).swapaxes(1, 2).reshape(6, HEIGHT, WIDTH, 3)
    assert [read_number(tile) for tile in tiles] == found["which of 00?"]["frame_indices"]
    assert len(set(found["which of 00?"]["frame_indices"])) == 6
    text = body["messages"][0]["content"][-1]["text"]
    assert "which of 00?\n(A) water\n(B) milk\n(C) oil\n" in text
    assert not any(word in text for word in ("USER", "ASSISTANT", "<image>"))
    assert (body["temperature"], body["max_tokens"]) == (0, 32)
    told = metrics(folder)
    assert (told["n"], told["n_failed"]) == (9, 0)
    assert told["score"] == pytest.approx(6 / 9)
    assert found["what is it?"]["prediction"] == "(B) milk"
    assert (told["api_prompt_tokens"], told["api_completion_tokens"], told["api_cost"]) == (900, 63, None)
    assert found["which of 00?"]["answered_by"] == "tiny-2026"
    assert {"decode", "api"} <= set(told["seconds"])
    assert told["frames_decoded"] == 3 * 6  # each clip is read once, whatever is asked about it


def test_frames_one_by_one_made_smaller_and_paid_for(point):
    with chat_server(milk) as server:
        one = served_by(server, view="frames", max_side=48)
        folder = point(*one, "frames.num=4", "model.prices={input: 2.5, output: 10}")
    assert [image.shape for image in images(server.asked[0])] == [(32, 48, 3)] * 4
    assert metrics(folder)["api_cost"] == pytest.approx((900 * 2.5 + 63 * 10) / 1e6)
    assert folder.name.startswith("seer-frames-none-f4-generate-")


def test_a_clip_with_fewer_frames_leaves_black_places(point):
    with chat_server(milk) as server:
        folder = point(*served_by(server, format="png"), "frames=fps", "frames.rate=1", "frames.num=6")
    shown = len(records(folder)[0]["frame_indices"])
    assert shown < 6
    (grid,) = images(server.asked[0])
    assert grid.shape == (3 * HEIGHT, 2 * WIDTH, 3)
    assert grid[-HEIGHT:, -WIDTH:].max() == 0


def test_identity_is_address_model_and_view(point, tmp_path, drawn):
    with chat_server(milk) as server:
        first = point(*served_by(server))
        same = point(*served_by(server, timeout=9, concurrency=1, retries=0))
        others = [
            point(*served_by(server, **more))
            for more in ({"model": "other"}, {"format": "png"}, {"rows": 2, "cols": 3})
        ]
    assert same == first
    assert len({first, *others}) == 4
    identity = json.loads((first / "run.json").read_text())["identity"]
    assert identity["model"]["base_url"] == server.base_url
    files, table = write_report(tmp_path / "results" / "s", "none")
    assert (table.status == "complete").all()
    assert table.visual_tokens.isna().all()
    assert table.prefill_gflops.isna().all()
    assert any("by_frames" in file for file in files)


def test_failures_are_recorded_and_asked_again(point, tmp_path):
    def odd(number, body):
        text = body["messages"][0]["content"][-1]["text"]
        if "which of 10?" in text:
            return Answer({"error": "cannot see this"}, 400)
        if number < 3:
            return [Answer({}, 429, {"retry-after": "0.5"}), Answer(b"x", 502), Answer(completion("x"), cut=True)][
                number
            ]
        return "(B)"

    with chat_server(odd) as server:
        with pytest.raises(PointFailed, match="1 of 9 samples could not be evaluated"):
            point(*served_by(server, concurrency=1))
        assert len(server.asked) == 9 + 3
        assert server.times[1] - server.times[0] >= 0.5
        (folder,) = (tmp_path / "results" / "s").iterdir()
        (failed,) = [record for record in records(folder) if record["status"] != "ok"]
        assert (failed["status"], failed["score"], failed["prediction"]) == ("api_failed", None, None)
        assert "400: cannot see this" in failed["reason"]
        server.answer = milk
        point(*served_by(server))
        assert len(server.asked) == 13
    assert (metrics(folder)["n"], metrics(folder)["n_failed"]) == (9, 0)
    assert metrics(folder)["api_prompt_tokens"] == 900
    assert metrics(folder)["api_requests"] == 1


def test_a_broken_clip_costs_no_request(point, world, tmp_path):
    lines = (world / "qa.csv").read_text() + "v_9,which?,milk,water,milk,oil\n"
    (tmp_path / "qa.csv").write_text(lines)
    (tmp_path / "clips").mkdir()
    for path in world.glob("*.mp4"):
        (tmp_path / "clips" / path.name).symlink_to(path)
    (tmp_path / "clips" / "v_9.mp4").write_bytes(b"no video")
    where = [f"benchmark.root={tmp_path / 'clips'}", f"benchmark.annotations={tmp_path / 'qa.csv'}"]
    with chat_server(milk) as server:
        folder = point(*served_by(server), *where, "job.max_failed_fraction=0.2")
    assert len(server.asked) == 9
    assert [record["clip"] for record in records(folder) if record["status"] == "unreadable_video"] == ["v_9"]


def test_an_api_s_open_answers_can_be_judged(point):
    with chat_server(lambda number, body: RIGHT if body["model"] == "judge" else "(B)") as server:
        judge = ["judge=openai", f"judge.base_url={server.base_url}", "judge.model=judge", "judge.key_env=null"]
        folder = point(*served_by(server), *judge)
    told = metrics(folder)
    assert told["score"] == 1.0
    assert (told["judge_requests"], told["api_requests"]) == (3, 9)
    assert told["judge_grade"] == 4.0  # of the open questions; those of multiple choice have no grade
    assert sum("judge_grade" in record for record in records(folder)) == 3


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        (["pooling=average"], ConfigError, "say pooling=none"),
        (["pooling.stage=encoder"], ConfigError, "say pooling=none"),
        (["benchmark.scoring=likelihood"], ConfigError, "say benchmark.scoring=generate"),
        (["benchmark.scoring=cloze"], ConfigError, "say benchmark.scoring=generate"),
        (["frames.num=4"], ConfigError, "need frames.num=6, got 4"),
        (["model.view=film"], ConfigError, "choose one of grid, frames"),
        (["model.format=gif"], ConfigError, "choose one of jpeg, png"),
        (["model.quality=0"], ConfigError, "model.quality"),
        (["model.max_side=0"], ConfigError, "model.max_side"),
        (["model.prices.input=-1"], ConfigError, "model.prices.input"),
        (["model.base_url=nowhere"], ChatError, "model.base_url"),
        (["model.key_env=NO_SUCH_KEY"], ChatError, "NO_SUCH_KEY: this environment variable is not set"),
        (["lora.checkpoint=some"], ConfigError, "say lora=none"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_told(point, more, error, words):
    with pytest.raises(error) as caught:
        point("model.model=seer", "model.key_env=API_KEY", *more)
    assert words in str(caught.value)


def test_a_plan_of_both_kinds_of_models(point, capsys):
    rows = [
        cost_of(compose("config", overrides=["job=plan", *more]))
        for more in (["frames.num=6"], ["model=api", "model.model=seer", "frames.num=6"])
    ]
    show_plan(rows)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "seer" in line]
    assert line.count(" - ") >= 6
    assert any("mini" in line and "864" in line for line in lines)


def test_other_jobs_say_that_there_is_nothing_to_see(point):
    config = compose("config", overrides=["job=inspect", "model=api", "model.model=seer"])
    with pytest.raises(ConfigError, match="behind an API"):
        inspect_model(config)
    with pytest.raises(ConfigError, match="job=speed measures this machine"):
        speed(compose("config", overrides=["job=speed", "model=api", "model.model=seer"]))
    with pytest.raises(ConfigError, match=r"model\.tower: job=speed measures models as they stand"):
        speed(compose("config", overrides=["job=speed", "model.tower.register=zeros"]))


def test_from_the_command_line_and_the_key_in_no_file(world, tmp_path, videopool):
    with chat_server(milk) as server:
        told = videopool(*words(world, tmp_path, *served_by(server)), small=False, env={"API_KEY": KEY})
    assert "66.7 %, n=9" in told.stdout
    assert KEY not in told.stdout + told.stderr
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
