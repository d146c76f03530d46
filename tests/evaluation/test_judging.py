"""Points with a judge: before, during and after; against a real server on this machine."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from chat_server import KEY, RIGHT, WRONG, Answer, chat_server, completion
from composed import composed
from conftest import numbered_frames
from videopool.chat import ChatError
from videopool.config.errors import ConfigError
from videopool.evaluation.run import evaluate
from videopool.judges.protocol import PROTOCOL
from videopool.reports.files import write_report
from videopool.results import PointFailed
from videopool.shapes.clips import write_mp4

CLIPS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips, short open questions about them (12), and a tiny VCGBench (2 + 1 questions, 2 pairs)."""
    folder = tmp_path_factory.mktemp("clips")
    for n in range(CLIPS):
        write_mp4(folder / f"v_{n}.mp4", numbered_frames(4, 96, 96))
    rows = [f"v_{n % CLIPS},what is {n}?,thing {n}" for n in range(12)]
    (folder / "qa.csv").write_text("video_name,question,answer\n" + "\n".join(rows) + "\n")
    (folder / "choice.csv").write_text("video_name,question,answer,a0,a1\nv_0,which?,red,red,blue\n")
    parts = {
        "generic": [{"Q": f"what {n}?", "A": f"it is {n}", "video_name": f"v_{n}"} for n in range(2)],
        "temporal": [{"Q": "what first?", "A": "the bow", "video_name": "v_2"}],
        "consistency": [{"Q1": f"who {n}?", "Q2": f"tell who {n}", "A": "she", "video_name": f"v_{n}"} for n in (1, 3)],
    }
    for name, entries in parts.items():
        (folder / f"{name}_qa.json").write_text(json.dumps(entries))
    return folder


QA = ("benchmark=qa_sheet", "benchmark.scoring=generate", "benchmark.id=own")
VCG = ("benchmark=vcgbench",)


def words(world, tmp_path, *more):
    sheet = world if VCG[0] in more else world / "qa.csv"
    return [f"results_dir={tmp_path}/results", f"benchmark.root={world}", f"benchmark.annotations={sheet}",
            "benchmark.max_new_tokens=3", "logger=none", "frames.num=1", "job.workers=0", "study=s", *more]  # fmt: skip


@pytest.fixture
def point(world, tmp_path, monkeypatch):
    """Runs one point in this process; gives its folder."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    return lambda *more: Path(evaluate(composed(*words(world, tmp_path, *more))).folder)


def asked_of(server, **more):
    settings = {"base_url": server.base_url, "model": "tiny", "key_env": "JUDGE_KEY", "backoff": 0.01, **more}
    return ["judge=openai", *(f"judge.{key}={value}" for key, value in settings.items())]


def name_of(server):
    return f"openai:tiny@{server.base_url}:64:v{PROTOCOL}"


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def read(folder, name="metrics"):
    return json.loads((folder / f"{name}.json").read_text())


def replies(tmp_path):
    (path,) = (tmp_path / "results" / "judgements").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_question(number, body):
    """Even things are right."""
    return RIGHT if int(body["messages"][1]["content"].split("?")[0].split()[-1]) % 2 == 0 else WRONG


def test_short_answers_are_graded_and_asked_about_once(point, tmp_path):
    meeting = threading.Barrier(3)

    def together(number, body):
        """The first three wait for each other: asked one by one, they would break the barrier and be asked again."""
        if number < 3:
            meeting.wait(timeout=30)
        return by_question(number, body)

    with chat_server(together) as server:
        folder = point(*QA, *asked_of(server, concurrency=3))
        assert len(server.asked) == 12
        assert server.most_at_once == 3
        (folder / "metrics.json").unlink()
        point(*QA, *asked_of(server))
        assert len(server.asked) == 12
    assert {body["model"] for body in server.asked} == {"tiny"}
    found, metrics, manifest = records(folder), read(folder), read(folder, "run")
    for record in found:
        even = int(record["question"].split()[-1][:-1]) % 2 == 0
        assert (record["score"], record["judge_grade"]) == ((1.0, 4.0) if even else (0.0, 1.0))
        assert record["judge"] == name_of(server)
        assert record["verdict"]["pred"] == ("yes" if even else "no")
        assert record["status"] == "ok"
    assert (metrics["score"], metrics["judge_grade"], metrics["n"], metrics["n_failed"]) == (0.5, 2.5, 12, 0)
    assert metrics["judge_grade_low"] is metrics["judge_grade_high"] is None  # of four clips there is no interval
    assert (metrics["judge"], metrics["judge_requests"], metrics["judge_reused"]) == (name_of(server), 0, 12)
    assert "judge" in metrics["seconds"]
    assert manifest["identity"]["judge"] == manifest["point"]["judge"] == name_of(server)
    assert {line["model"] for line in replies(tmp_path)} == {"tiny-2026"}
    assert all(line["reply"] in (RIGHT, WRONG) for line in replies(tmp_path))


def test_axes_and_pairs(point, tmp_path):
    def by_axis(number, body):
        system, text = body["messages"][0]["content"], body["messages"][1]["content"]
        if "Prediction 2" in text:
            return '{"score": 2}'
        return '{"score": 5}' if "order of time" in system else '{"score": 4}' if "facts" in system else '{"score": 1}'

    with chat_server(by_axis) as server:
        folder = point(*VCG, *asked_of(server))
    assert len(server.asked) == 2 * 3 + 1 + 2
    metrics = read(folder)
    grades = {axis: one["judge_grade"] for axis, one in metrics["groups"].items()}
    assert grades == {"correctness_of_information": 4, "detail_orientation": 1, "contextual_understanding": 1,
                      "temporal_understanding": 5, "consistency": 2}  # fmt: skip
    assert metrics["judge_grade"] == pytest.approx(13 / 5)
    assert metrics["score"] == pytest.approx(13 / 25)
    assert metrics["judge_completion_tokens"] == 9 * 7
    assert {len(record["axes"]) for record in records(folder) if record["task"] == "generic"} == {3}


def test_answers_are_taken_over_whatever_the_judge(point, tmp_path, monkeypatch, capsys):
    plain = point(*QA)
    before = records(plain)
    assert all(record["score"] in (0.0, 1.0) and "judge" not in record for record in before)

    def no_model(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("videopool.evaluation.evaluator.point_backbone", no_model)
    with chat_server(lambda number, body: RIGHT) as server:
        first = point(*QA, *asked_of(server))
        second = point(*QA, *asked_of(server, model="other"))
        assert len(server.asked) == 24
    assert capsys.readouterr().out.count("12 answers are taken over") == 2
    assert len({plain, first, second}) == 3
    assert {read(p, "run")["answers"] for p in (plain, first, second)} == {read(plain, "run")["answers"]}
    assert read(first)["score"] == 1
    assert [record["prediction"] for record in records(second)] == [record["prediction"] for record in before]
    for path in plain.iterdir():
        path.unlink()
    plain.rmdir()
    assert records(point(*QA)) == before  # from a graded point, and without its grades
    with pytest.raises(AssertionError, match="was loaded"):
        point(*QA, "force=true")  # asks for the answers to be given again
    with pytest.raises(AssertionError, match="was loaded"):
        point(*QA, "frames.num=2", "judge=none")


def test_grading_again_offline_asks_nothing_and_needs_no_key(point, tmp_path, monkeypatch):
    with chat_server(by_question) as server:
        folder = point(*QA, *asked_of(server))
    before = records(folder)
    (folder / "metrics.json").unlink()
    monkeypatch.delenv("JUDGE_KEY")
    point(*QA, *asked_of(server))
    assert (read(folder)["judge_requests"], read(folder)["judge_reused"]) == (0, 12)
    assert records(folder) == before


def test_a_changed_answer_gets_no_old_verdict(point, tmp_path):
    with chat_server(lambda number, body: WRONG) as server:
        folder = point(*QA, *asked_of(server))
        changed = records(folder)
        changed[3]["prediction"] = "something else"
        (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in changed))
        (folder / "metrics.json").unlink()
        server.answer = lambda number, body: RIGHT
        point(*QA, *asked_of(server))
        assert len(server.asked) == 13
        assert '"something else"' in server.said[-1]
    assert [record["score"] for record in records(folder)].count(1.0) == 1
    assert records(folder)[3]["score"] == 1.0


PASSING = [
    Answer({"error": "slow down"}, 429, {"retry-after": "1"}),
    Answer(b"oops", 500),
    Answer(completion(RIGHT), cut=True),
    Answer(completion(RIGHT), delay=1.0),
    "I would say yes.",
    '{"pred": "yes", "score": 9}',
    '{"pred": "yes"}',
    f"{RIGHT} or {WRONG}",
    Answer(completion(None)),
]


def test_what_passes_is_tried_again(point, tmp_path):
    """A different misfortune for each of the first requests; then all is well."""
    with chat_server(lambda number, body: PASSING[number] if number < len(PASSING) else RIGHT) as server:
        folder = point(*QA, *asked_of(server, concurrency=1, timeout=0.5, retries=9, backoff=0.001))
    metrics = read(folder)
    assert (metrics["score"], metrics["n_failed"]) == (1.0, 0)
    assert metrics["judge_requests"] == len(server.asked) == 12 + len(PASSING)
    assert server.times[1] - server.times[0] >= 1.0  # as the server asked
    kept = [line["reply"] for line in replies(tmp_path)]
    assert len(kept) == 12 + 4
    # A reply that is no verdict is asked for again with what was wrong with it; nothing else changes the request.
    again = {number: text.partition("could not be used: ")[2] for number, text in enumerate(server.said)}
    assert {number for number, text in again.items() if text} == {5, 6, 7, 8, 9}
    assert again[5].startswith("no verdict")
    assert again[6].startswith("score must be")
    assert again[7].startswith("the key score is missing")
    assert again[8].startswith("2 verdicts that differ")
    assert again[9].startswith("a reply without text")
    assert "I would say yes." in kept


def test_lasting_failures_fail_the_point_and_only_they_are_asked_again(point, tmp_path, monkeypatch):
    def three_bad(number, body):
        return "hm" if any(f"what is {n}?" in body["messages"][1]["content"] for n in (1, 5, 7)) else RIGHT

    with chat_server(three_bad) as server:
        with pytest.raises(PointFailed, match="3 of 12 samples could not be evaluated"):
            point(*QA, *asked_of(server, retries=1))
        (folder,) = (tmp_path / "results" / "s").iterdir()
        failed = [record for record in records(folder) if record["status"] == "judge_failed"]
        assert [record["question"] for record in failed] == ["what is 1?", "what is 5?", "what is 7?"]
        assert all(record["score"] is None and record["prediction"] is not None for record in failed)
        assert all("no verdict" in record["reason"] and "'hm'" in record["reason"] for record in failed)
        assert len(server.asked) == 9 + 3 * 2
        monkeypatch.setattr("videopool.evaluation.evaluator.point_backbone", None)
        point(*QA, *asked_of(server, retries=0), "job.max_failed_fraction=0.5")
        assert len(server.asked) == 15 + 3
        metrics = read(folder)
        assert (metrics["n"], metrics["n_failed"], metrics["score"]) == (9, 3, 1.0)
        (folder / "metrics.json").unlink()
        server.answer = lambda number, body: WRONG
        point(*QA, *asked_of(server))
    assert (read(folder)["n"], read(folder)["score"]) == (12, 0.75)
    assert not any("reason" in record for record in records(folder))


def test_a_key_that_is_missing_or_refused(point, tmp_path, monkeypatch):
    with chat_server(lambda number, body: Answer({"error": {"message": f"bad key {KEY}"}}, 401)) as server:
        with pytest.raises(ChatError, match=r"401: bad key \[key\] \(check the key in JUDGE_KEY\)"):
            point(*QA, *asked_of(server, concurrency=1))
        assert len(server.asked) == 1
        (folder,) = (tmp_path / "results" / "s").iterdir()
        assert len(records(folder)) == 12, "the answers stay"
        monkeypatch.delenv("JUDGE_KEY")
        with pytest.raises(ChatError, match="JUDGE_KEY: this environment variable is not set"):
            point(*QA, *asked_of(server), "study=fresh")
        (folder,) = (tmp_path / "results" / "fresh").iterdir()
        assert records(folder) == [], "told before any answer"


def test_nothing_to_grade_is_told(point, world):
    with pytest.raises(ConfigError, match="own/own has no open questions"):
        point(*QA, f"benchmark.annotations={world / 'choice.csv'}", "judge=openai", "judge.model=x")


def test_a_judge_on_this_machine(point, tmp_path):
    from judges.test_local import save_model

    model = save_model(tmp_path / "good", says=RIGHT)
    local = ["judge=local", "judge.dtype=float32", "judge.device=cpu", "judge.max_tokens=8"]
    folder = point(*QA, *local, f"judge.source={model}")
    assert read(folder)["score"] == 1
    assert read(folder)["judge"].startswith("local:good@")
    assert read(folder)["judge_completion_tokens"] == 24
    bad = save_model(tmp_path / "random")
    with pytest.raises(ChatError, match="judge: no usable reply to 10 requests in a row"):
        point(*QA, *local, f"judge.source={bad}")


def test_killed_while_grading_and_the_key_in_no_file(world, tmp_path, videopool, forked):
    """End to end, in processes: a kill costs what was in hand; nothing that is written or told holds the key."""
    env = {"JUDGE_KEY": KEY}

    def slow(number, body):
        time.sleep(0.1)
        return by_question(number, body)

    with chat_server(slow) as server:
        more = words(world, tmp_path, *QA, *asked_of(server, concurrency=2))
        process = forked.start(more, tmp_path, env=env, new_session=True)
        deadline = time.monotonic() + 100
        while len(server.asked) < 6:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        told = videopool(*more, small=False, env=env)
        assert 12 <= len(server.asked) <= 12 + 2
    assert "50.0 %, judge's grade 2.50 of 5, n=12" in told.stdout
    assert len({line["key"] for line in replies(tmp_path)}) == 12
    write_report(tmp_path / "results" / "s", "none")
    assert name_of(server) in (tmp_path / "results" / "s" / "sweep.csv").read_text()
    assert KEY not in told.stdout + told.stderr
    assert all(header["authorization"] == f"Bearer {KEY}" for header in server.headers)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
