"""A sample that does not fit the model's context fails alone; the others are answered as without it."""

import json

import pytest

from chat_server import Answer, chat_server
from conftest import numbered_frames
from videopool.shapes.clips import write_mp4

LONG = "where is the red circle ? " * 1500
TEXT = "the left of the big red circle and the small blue square "


@pytest.fixture
def clips(tmp_path):
    """Two clips, and a sheet with a question on each that is too long for 8192 tokens among others."""
    (tmp_path / "clips").mkdir()
    for name in "ab":
        write_mp4(tmp_path / "clips" / f"{name}.mp4", numbered_frames(6))
    return tmp_path


def sheet(folder, choices):
    def row(name, question, long=False):
        options = [f"{TEXT * (700 if long else 1)}{one}" for one in ("red", "blue")] if choices else []
        return {"video_name": name, "question": question, "answer": options[0] if choices else "red",
                **({"a0": options[0], "a1": options[1]} if choices else {})}  # fmt: skip

    rows = [row("a", "what moves ?"), row("a", "what ?", True) if choices else row("a", LONG), row("a", "who moves ?")]
    rows += [row("b", "what moves ?"), row("b", LONG), row("b", "how many ?")]
    (folder / "q.json").write_text(json.dumps(rows))
    return ["benchmark=clips", f"benchmark.root={folder}/clips", f"benchmark.questions={folder}/q.json"]


def records_of(folder, study):
    (path,) = (folder / "results" / study).glob("*/records.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (True, ["benchmark.scoring=likelihood"]),
        (True, ["benchmark.scoring=cloze"]),
        (False, ["pooling=blind"]),
        (True, ["pooling=text_guided", "benchmark.scoring=generate"]),
    ],
    ids=["likelihood", "cloze", "open", "text-guided"],
)
def test_one_sample_fails_alone(videopool, clips, choices, words):
    common = ["frames.num=2", "logger=none", "job.workers=0", "benchmark.max_new_tokens=4", *words]
    wanted = sheet(clips, choices)
    refused = videopool(*wanted, *common, "study=few", small=False, check=1).stderr.splitlines()
    first = next(line for line in refused if "too long" in line)
    assert "2 of 6 samples could not be evaluated" in first
    assert "tokens of 8192" in first
    assert "job.max_failed_fraction=0.05" in first
    videopool(*wanted, *common, "study=most", "job.max_failed_fraction=0.5", small=False)
    records = records_of(clips, "most")
    assert [r["status"] for r in records].count("ok") == 4
    failed = [r for r in records if r["status"] == "too_long"]
    assert len(failed) == 2
    assert all(r["score"] is None and r["tokens"] > r["limit"] == 8192 for r in failed)
    (path,) = (clips / "results" / "most").glob("*/metrics.json")
    metrics = json.loads(path.read_text())
    assert (metrics["n"], metrics["n_failed"]) == (4, 2)
    rows = [row for row in json.loads((clips / "q.json").read_text()) if len(json.dumps(row)) < 5000]
    (clips / "q.json").write_text(json.dumps(rows))
    videopool(*wanted, *common, "study=others", small=False)
    alone = {r["question"] + r["clip"]: r["prediction"] for r in records_of(clips, "others")}
    assert alone == {r["question"] + r["clip"]: r["prediction"] for r in records if r["status"] == "ok"}


def test_norms_leave_out_a_clip_whose_question_is_too_long(videopool, clips):
    rows = [{"video_name": "a", "question": LONG, "answer": "red"}, {"video_name": "b", "question": "what ?"}]
    (clips / "q.json").write_text(json.dumps(rows))
    words = ["benchmark=clips", f"benchmark.root={clips}/clips", f"benchmark.questions={clips}/q.json", "logger=none"]
    words += ["frames.num=2", "job=norms", "model.attention=eager", "job.attention_layers=[1]"]
    videopool(*words, "job.max_failed_fraction=0.6", small=False)
    (path,) = (clips / "results" / "default").glob("*/norms.json")
    numbers = json.loads(path.read_text())
    assert (numbers["clips"], len(numbers["failed"])) == (1, 1)
    assert "do not fit the context of 8192" in next(iter(numbers["failed"].values()))


def test_a_server_that_says_so_fails_that_sample(videopool, clips):
    """As OpenAI's, vLLM's and others word it; however many such samples follow each other."""
    told = [
        {"message": "This model's maximum context length is 4096 tokens. However, your messages resulted in 9000 "
         "tokens.", "code": "context_length_exceeded"},
        {"message": "Input is too long for requested model.", "code": None},
        {"message": "no", "code": "context_length_exceeded"},
    ]  # fmt: skip

    def answer(number, body):
        text = body["messages"][-1]["content"][-1]["text"]
        return Answer({"error": told[number % 3]}, 400) if "circle" in text else "red"

    rows = [{"video_name": "a", "question": f"{number} circle ?", "answer": "red"} for number in range(24)]
    rows += [{"video_name": "b", "question": "what ?", "answer": "red"}]
    (clips / "q.json").write_text(json.dumps(rows))
    with chat_server(answer) as server:
        words = ["model=api", f"model.base_url={server.base_url}", "model.model=m", "model.key_env=null"]
        words += ["benchmark=clips", f"benchmark.root={clips}/clips", f"benchmark.questions={clips}/q.json"]
        words += ["frames.num=6", "logger=none", "job.max_failed_fraction=0.99", "model.concurrency=1"]
        videopool(*words, "benchmark.scoring=generate", small=False)
    records = records_of(clips, "default")
    assert [r["status"] for r in records].count("too_long") == 24
    assert {(r["tokens"], r["limit"]) for r in records if r["status"] == "too_long"} == {(9000, 4096), (None, None)}
    assert [r["status"] for r in records if r["clip"].startswith("b")] == ["ok"]
