"""Replies on disk, weighted means, and what keeps points of different judges apart."""

import json
import multiprocessing

import numpy as np
import pytest

from videopool.benchmarks.vcgbench import AXES
from videopool.results import (
    ReplyStore,
    ResultsError,
    add_differences,
    compare,
    load_study,
    metrics_of,
    read_records,
    write_records,
)
from videopool.results.statistics import balanced

WEIGHTS = {"generic": 3.0, "temporal": 1.0, "consistency": 1.0}


def add_many(path, name):
    store = ReplyStore(path)
    for number in range(200):
        store.add(f"{name}{number}", f"reply\n“{number}” " * 20, {"judge": "j"})


def test_replies_are_kept_newest_first_and_survive_a_cut_at_every_byte(tmp_path):
    path = tmp_path / "deep" / "replies.jsonl"
    store = ReplyStore(path)
    assert store.texts("a") == []
    for key, reply in (("a", "first"), ("b", "é\n"), ("a", "second")):
        store.add(key, reply, {"judge": "j", "n": 1})
    assert store.texts("a") == ReplyStore(path).texts("a") == ["second", "first"]
    assert json.loads(path.read_text().splitlines()[1]) == {"key": "b", "judge": "j", "n": 1, "reply": "é\n"}
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        ReplyStore(path).add("new", "x", {})
        again = ReplyStore(path)
        assert again.texts("new") == ["x"]
        complete = [text for text in ("second", "first") if f'"{text}"}}'.encode() in whole[:cut]]
        assert again.texts("a") == complete


def test_several_processes_add_whole_lines(tmp_path):
    path = tmp_path / "replies.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == 600


def test_a_store_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"file/replies.jsonl cannot be written"):
        ReplyStore(tmp_path / "file" / "replies.jsonl").add("a", "b", {})


def test_balanced_values_have_the_weighted_mean_and_its_spread():
    rng = np.random.default_rng(0)
    tasks = ["generic"] * 60 + ["temporal"] * 15 + ["consistency"] * 25
    values = rng.random(100) + np.array([0.0] * 60 + [2.0] * 15 + [5.0] * 25)
    means = {task: values[[t == task for t in tasks]].mean() for task in WEIGHTS}
    whole = sum(WEIGHTS[task] * mean for task, mean in means.items()) / 5
    out = balanced(values, tasks, WEIGHTS)
    assert out.mean() == pytest.approx(whole)
    # The variance of independent task means, weighted: differences between tasks are no part of it.
    expected = sum(
        (WEIGHTS[task] / 5) ** 2 * values[[t == task for t in tasks]].var() / tasks.count(task) for task in WEIGHTS
    )
    assert out.var() / 100 == pytest.approx(expected)
    assert balanced(np.array([1.0, 0.0]), ["a", "b"], {}).tolist() == [1.0, 0.0]
    present = balanced(np.array([1.0, 3.0]), ["temporal", "generic"], WEIGHTS)
    assert np.mean(present) == pytest.approx((1 + 3 * 3) / 4)


def graded(number, task, axes, **more):
    grade = sum(axes.values()) / len(axes)
    return {"id": f"s{number}", "clip": f"c{number}", "task": task, "options": [], "status": "ok",
            "score": grade / 5, "judge_grade": grade, "axes": axes, **more}  # fmt: skip


def vcg_records(shift=0.0):
    generic = [axis for axis, task in AXES.items() if task == "generic"]
    records = [graded(n, "generic", dict(zip(generic, (n % 5, 3, 2 + shift), strict=True))) for n in range(10)]
    records += [graded(20 + n, "temporal", {"temporal_understanding": 1 + shift}) for n in range(2)]
    return records + [graded(30 + n, "consistency", {"consistency": 4}) for n in range(4)]


def test_the_headline_is_the_mean_of_the_axes():
    records = [*vcg_records(), {**graded(99, "temporal", {"temporal_understanding": 5}), "status": "judge_failed",
                                "score": None, "axes": None}]  # fmt: skip
    metrics = metrics_of(records, {}, lambda task: True, AXES, WEIGHTS)
    means = {axis: metrics["groups"][axis]["judge_grade"] for axis in AXES}
    assert means == pytest.approx(
        {"correctness_of_information": 2, "detail_orientation": 3, "contextual_understanding": 2,
         "temporal_understanding": 1, "consistency": 4}
    )  # fmt: skip
    assert metrics["judge_grade"] == pytest.approx(2.4)
    assert metrics["score"] == pytest.approx(2.4 / 5)
    assert (metrics["n"], metrics["n_failed"]) == (16, 1)
    assert metrics["groups"]["temporal_understanding"]["n_failed"] == 1
    assert metrics["judge_grade_low"] <= 2.4 <= metrics["judge_grade_high"]


def save_point(study, name, records, judge, pooling="none"):
    folder = study / name
    folder.mkdir(parents=True)
    point = {
        "model": "m", "pooling": pooling, "map_signature": pooling, "stage": "projector", "frames": 4,
        "visual_tokens": None, "benchmark": "vcg/test", "split": "test", "judge": judge, "task_weights": WEIGHTS,
    }  # fmt: skip
    identity = {"benchmark": "vcg/test", **({"judge": judge} if judge else {})}
    (folder / "run.json").write_text(json.dumps({"fingerprint": name, "point": point, "identity": identity}))
    metrics = metrics_of(records, {}, lambda task: True, AXES, WEIGHTS)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_records(folder / "records.jsonl", records)
    return folder


def test_points_of_different_judges_are_not_compared(tmp_path):
    base = save_point(tmp_path, "base", vcg_records(), "openai:x:v1")
    better = save_point(tmp_path, "better", vcg_records(1.0), "openai:x:v1", pooling="average time")
    other = save_point(tmp_path, "other", vcg_records(), "openai:y:v1", pooling="average time")
    nobody = save_point(tmp_path, "nobody", vcg_records(), None, pooling="average time")
    estimate = compare(better, base).difference
    assert estimate.value == pytest.approx((1 + 1) / 5 / 5)  # two of five axes are better by a grade
    for odd in (other, nobody):
        with pytest.raises(ResultsError, match=r"judge .* is not judge openai:x:v1"):
            compare(odd, base)
    table = load_study(tmp_path).set_index("point")
    assert table.judge.dropna().to_dict() == {"base": "openai:x:v1", "better": "openai:x:v1", "other": "openai:y:v1"}
    assert table.judge_grade["base"] == pytest.approx(2.4)
    assert table.same_map_as.isna().all()
    told = add_differences(table.reset_index(), "none", lambda task: True).set_index("point")
    assert told.baseline["better"] == "base"
    assert told.difference["better"] == pytest.approx(0.08)
    assert told.baseline["other"] == told.baseline["nobody"] == "base"
    assert told.differs["other"] == told.differs["nobody"] == "judge"
    assert told.difference[["other", "nobody"]].isna().all()
    rival = save_point(tmp_path, "another base", vcg_records(), "openai:y:v1")
    told = add_differences(load_study(tmp_path), "none", lambda task: True).set_index("point")
    assert told.baseline["other"] == rival.name, "the baseline of the same judge, where there is one"
    assert told.difference["other"] == 0


def test_records_are_exchanged_whole(tmp_path):
    write_records(tmp_path / "records.jsonl", [{"id": "a"}, {"id": "b"}])
    assert [record["id"] for record in read_records(tmp_path / "records.jsonl")] == ["a", "b"]
    with pytest.raises(ResultsError, match="cannot be written"):
        write_records(tmp_path / "nowhere" / "records.jsonl", [])
