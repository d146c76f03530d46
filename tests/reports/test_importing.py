"""job=import: samples that lmms-eval logged, as points that are paired and clustered."""

import json

import pytest

from conftest import numbered_frames
from videopool.config.errors import ConfigError
from videopool.harness.answering import answered
from videopool.harness.requests import Request, asked
from videopool.reports.importing import logged, metric_of, score_in
from videopool.results import load_study
from videopool.shapes.clips import write_mp4

ANSWERS = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def row(number, score, **more):
    given = "A" if score else "B"
    return {"doc_id": number, "target": "A", "filtered_resps": given, "token_counts": [None],
            "doc_hash": "x", "input": f"question {number}", "x_acc": {"pred_answer": given, "answer": "A",
            "videoID": f"v{number // 2}"}, **more}  # fmt: skip


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    results = {"configs": {"mine": {"validation_split": "val"}}, "config": {"model": "other"}}
    path.with_name("20260101_000000_results.json").write_text(json.dumps(results))
    return path


def test_another_models_samples_are_paired_and_clustered(videopool, tmp_path):
    for name, scores in (("one", ANSWERS * 2), ("two", [1.0 - score for score in ANSWERS] + ANSWERS)):
        file = write(tmp_path / name / "20260101_000000_samples_mine.jsonl", [row(*pair) for pair in enumerate(scores)])
        words = ("job=import", f"job.samples={file}", f"job.model={name}", "job.frames=8", "study=imported")
        refused = videopool(*words, check=1, small=False)
        reason = "does not say the clip of document 0; name its field, as in job.clip=x_acc.videoID"
        assert reason in refused.stdout + refused.stderr
        videopool(*words, "job.clip=x_acc.videoID", small=False)
        videopool(*words, "job.clip=x_acc.videoID", small=False)  # the same again
    table = load_study(tmp_path / "results/imported").set_index("model")
    assert table.score.to_dict() == {"one": sum(ANSWERS) / 12, "two": 0.5}
    assert set(table.benchmark) == {"lmms_eval_mine/val"}
    assert set(table.n) == {24}
    compared = videopool("job=compare", "study=imported", "points=[one-f8,two-f8]", small=False)
    assert "24" in compared.stdout
    report = videopool("job=report", "study=imported", "baseline=one-f8", small=False)
    assert "imported: 2 points" in report.stdout
    (file,) = (tmp_path / "results/imported").glob("one*/records.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({record["clip"] for record in records}) == 12


def test_a_points_own_samples_keep_failures_and_tokens(hydra_conf, tmp_path, data_dir, videopool):
    for name in ("a", "b"):
        write_mp4(tmp_path / f"{name}.mp4", numbered_frames(8, 96, 96))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    clips = ["a.mp4", "bad.mp4", "b.mp4"]
    requests = [Request("mine", "val", n, f"question {n}", str(tmp_path / clip), (), 2) for n, clip in enumerate(clips)]
    words = ("logger=none", "job.workers=0", "frames.num=2", "job.max_failed_fraction=0.5", "study=asked")
    config = hydra_conf(*words, f"results_dir={tmp_path}/results", f"data_dir={data_dir}")
    folder, _ = answered(config, asked(requests, tmp_path)[0])
    file = write(tmp_path / "20260101_000000_samples_mine.jsonl", [row(n, 1.0 - (n == 2)) for n in range(3)])
    words = ("job=import", f"job.samples={file}", f"job.point={folder}", "study=scored")
    done = videopool(*words, small=False)
    assert "imported, by x_acc" in done.stdout
    (scored,) = (tmp_path / "results/scored").glob("mini*")
    assert scored.name != folder.name
    records = [json.loads(line) for line in (scored / "records.jsonl").open()]
    assert [(r["status"], r["score"], r["answer"]) for r in records] == [
        ("ok", 1.0, "A"), ("unreadable_video", None, "A"), ("ok", 0.0, "A"),
    ]  # fmt: skip
    metrics = json.loads((scored / "metrics.json").read_text())
    assert (metrics["n"], metrics["n_failed"], metrics["score"]) == (2, 1, 0.5)
    assert metrics["tokens_mean"] == json.loads((folder / "metrics.json").read_text())["tokens_mean"]
    videopool("job=verify", "study=scored", small=False)
    for rows, reason in (
        ([row(0, 1.0)], "no document 1"),
        ([row(n, 1.0, input="something else") for n in range(3)], "is not that of"),
    ):
        write(file, rows)
        assert reason in videopool(*words, check=1, small=False).stderr


def test_the_metric_that_makes_the_score(tmp_path):
    for value, score in ((1, 1.0), (True, 1.0), (0.25, 0.25), (3, None), ("x", None), ({"score": 1}, 1.0),
                         ({"pred": 1, "ground_truth": 1}, 1.0), ({"pred_answer": "a", "gt_answer": "b"}, 0.0),
                         ({"category": "x"}, None)):  # fmt: skip
        assert score_in(value) == score
    file = write(tmp_path / "x_samples_mine.jsonl", [row(0, 1.0, acc=0.0, words=12)])
    files = logged(str(tmp_path / "*_samples_*.jsonl"))
    assert metric_of(files, "acc") == "acc"
    with pytest.raises(ConfigError, match="choose one of x_acc, acc"):
        metric_of(files, None)
    with pytest.raises(ConfigError, match="choose one of"):
        metric_of(files, "words")
    write(file, [row(0, 1.0, x_acc=7)])
    with pytest.raises(ConfigError, match="no metric with a score"):
        metric_of(logged(str(file)), None)
    for samples, words in ((None, "no such file"), (str(tmp_path / "nothing*"), "no such file")):
        with pytest.raises(ConfigError, match=words):
            logged(samples)
    (tmp_path / "other.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="no file of lmms-eval"):
        logged(str(tmp_path / "other.jsonl"))
    (tmp_path / "y_samples_z.jsonl").write_text("")
    with pytest.raises(ConfigError, match="holds no samples"):
        logged(str(tmp_path / "y_samples_z.jsonl"))
