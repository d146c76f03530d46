"""The order of options, the mean over tasks, and answers for a server."""

import json
from collections import Counter

import pandas as pd
import pytest

from conftest import numbered_frames
from videopool.benchmarks import Benchmark, BenchmarkError, Sample
from videopool.results.records import write_submission
from videopool.shapes.clips import write_mp4

OPTIONS = ("a", "b", "c", "d")


def samples(number):
    return [Sample(f"s{n}", None, "v", "q", OPTIONS, OPTIONS[n % 4], task="x") for n in range(number)]


def orders(number=40, seed=1):
    return {s.id: s.options for s in Benchmark("b/own", "own", samples(number), "", shuffle_options=seed).samples}


def test_options_are_shuffled_by_seed_and_id_alone():
    own = orders()
    assert all(sorted(options) == list(OPTIONS) for options in own.values())
    assert len(set(own.values())) > 12  # of 24 orders
    assert orders(number=10) == {name: own[name] for name in (f"s{n}" for n in range(10))}
    assert orders(seed=2) != own
    places = Counter(options.index("a") for options in orders(2000).values())
    assert all(abs(count - 500) < 100 for count in places.values())
    (first, *_) = Benchmark("b/own", "own", samples(1), "", shuffle_options=1).samples
    assert (first.answer, first.options) == ("a", own["s0"])
    plain = Benchmark("b/own", "own", samples(40), "")
    assert {s.options for s in plain.samples} == {OPTIONS}


@pytest.mark.parametrize("seed", [-1, 1.5, True, "x"])
def test_seeds_that_are_none(seed):
    with pytest.raises(BenchmarkError, match=r"benchmark\.shuffle_options=.*: give a seed of at least 0, or null"):
        orders(seed=seed)


@pytest.mark.parametrize(("key", "words"), [("average", "samples, tasks"), ("submission", "index, letter")])
def test_words_that_are_unknown(key, words):
    with pytest.raises(BenchmarkError, match=rf"benchmark\.{key}='mean': choose one of {words}"):
        Benchmark("b/own", "own", samples(1), "", **{key: "mean"})


def test_a_submission_guesses_nothing(tmp_path):
    options = ["x", "y"]
    records = [
        {"id": "q2", "options": options, "prediction": "y"},
        {"id": "q1", "options": options, "prediction": "I think B", "parsed": "y"},
        {"id": "q3", "options": options, "prediction": "both", "parsed": None},
        {"id": "q4", "options": options, "prediction": None, "status": "unreadable_video"},
    ]
    assert write_submission(tmp_path, records, "index").endswith("submission.json has the answers to 2 of 4 questions")
    assert json.loads((tmp_path / "submission.json").read_text()) == {"q1": 1, "q2": 1}
    write_submission(tmp_path, records, "letter")
    assert json.loads((tmp_path / "submission.json").read_text()) == {"q1": "B", "q2": "B"}


@pytest.fixture
def clips(tmp_path):
    """Two clips and questions on them: nine of one task, one of another."""
    for name in "vw":
        write_mp4(tmp_path / f"{name}.mp4", numbered_frames(4, 96, 96))
    tasks = ["many"] * 9 + ["few"]
    rows = [
        {"video_name": "vw"[n % 2], "question": f"what is {n}?", "options": ["red", "blue"], "answer": "red",
         "question_type": task, "question_id": f"q{n}"} for n, task in enumerate(tasks)
    ]  # fmt: skip
    (tmp_path / "q.json").write_text(json.dumps(rows))
    (tmp_path / "hidden.json").write_text(json.dumps([{**row, "answer": None} for row in rows]))
    return tmp_path


def run(videopool, folder, name, *words):
    """The metrics of a point, and its folder."""
    chosen = ("benchmark=released", f"benchmark.root={folder}", f"benchmark.annotations={folder / name}")
    videopool(*chosen, "frames.num=2", f"study={name}", "logger=none", *words, small=False)
    (point,) = {path.parent for path in (folder / "results" / name).glob("*/metrics.json")}
    return json.loads((point / "metrics.json").read_text()), point


def test_the_mean_of_the_tasks_means(videopool, clips):
    metrics, point = run(videopool, clips, "q.json", "benchmark.average=tasks")
    records = [json.loads(line) for line in (point / "records.jsonl").read_text().splitlines()]
    by_task = pd.DataFrame(records).groupby("task").score.mean()
    assert metrics["score"] == pytest.approx(by_task.mean())
    assert json.loads((point / "run.json").read_text())["point"]["task_weights"] == {"few": 1, "many": 1}


def test_a_point_without_public_answers_writes_a_submission(videopool, clips):
    words = ("benchmark.submission=letter", "benchmark.shuffle_options=1")
    metrics, point = run(videopool, clips, "hidden.json", *words)
    assert metrics["score"] is None
    assert "options shuffled 1" in point.name.replace("_", " ").replace("-", " ")
    records = [json.loads(line) for line in (point / "records.jsonl").read_text().splitlines()]
    assert {tuple(r["options"]) for r in records} == {("red", "blue"), ("blue", "red")}
    sent = json.loads((point / "submission.json").read_text())
    assert sent == {r["id"]: "AB"[r["options"].index(r["prediction"])] for r in records}
    assert len(sent) == 10
