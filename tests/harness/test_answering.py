"""A point that answers requests: as the same point answers a benchmark, with tokens, losses and failures."""

import json

import pytest
from PIL import Image

from conftest import numbered_frames
from videopool.benchmarks.scoring import LETTERS
from videopool.config.build import build
from videopool.config.errors import ConfigError
from videopool.evaluation.run import evaluate
from videopool.harness.answering import RequestPoint, answered
from videopool.harness.requests import Request, RequestError, asked
from videopool.results import PointFailed
from videopool.shapes.clips import write_mp4

WORDS = ("pooling=adaptive_Tx3x3", "frames.num=2", "benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=2",
         "logger=none", "job.workers=0")  # fmt: skip


@pytest.fixture
def config(hydra_conf, tmp_path, data_dir):
    return lambda *words: hydra_conf(*WORDS, f"results_dir={tmp_path}/results", f"data_dir={data_dir}", *words)


def records_of(outcome):
    with open(f"{outcome.folder}/records.jsonl", encoding="utf-8") as file:
        return {record["id"]: record for record in map(json.loads, file)}


def requests_for(config, samples, **more):
    """Requests that put questions as the toy model's own prompt does."""
    prompt = build(config, "prompt")
    texts = [prompt.question_text(sample.question, sample.options) for sample in samples]
    pairs = enumerate(zip(samples, texts, strict=True))
    return [Request("toy", "test", number, text, [str(sample.clip)], **more) for number, (sample, text) in pairs]


def test_losses_choose_what_the_likelihood_of_letters_chooses(config, tmp_path):
    own = config("study=own")
    expected, samples = records_of(evaluate(own)), build(own, "benchmark").samples
    requests = [
        Request(one.task, one.split, one.doc, one.text, one.visual, tuple(f"({letter}" for letter in LETTERS[:count]))
        for one, count in zip(requests_for(own, samples), [len(s.options) for s in samples], strict=True)
    ]
    (group,) = asked(requests, tmp_path)
    assert group.benchmark.id == "lmms_eval_toy/test"
    folder, records = answered(config("study=asked"), group)
    assert folder.parent.name == "asked"
    for sample, record in zip(samples, records, strict=True):
        right = expected[sample.id]
        best = min(range(len(sample.options)), key=record["losses"].__getitem__)
        assert sample.options[best] == right["prediction"]
        # The bracket is common to all continuations, and each has two tokens.
        for loss, logprob in zip(record["losses"], right["option_logprobs"], strict=True):
            shift = -2 * (loss - record["losses"][0])
            assert shift == pytest.approx(logprob - right["option_logprobs"][0], abs=1e-3)
        assert record["visual_tokens"] == right["visual_tokens"]
    # A clip's questions are asked together, so its frames are encoded once.
    metrics = json.loads((folder / "metrics.json").read_text())
    clips = {sample.clip for sample in samples}
    assert metrics["frames_decoded"] + metrics["frames_from_store"] == 2 * len(clips)


def test_written_answers_and_greedy_continuations(config, tmp_path):
    own = config("study=own", "benchmark.scoring=generate", "benchmark.max_new_tokens=3", "prompt.answer_prefix=''")
    expected, samples = records_of(evaluate(own)), build(own, "benchmark").samples[:12]
    requests = requests_for(own, samples, max_new_tokens=3)
    (group,) = asked(requests, tmp_path)
    _, records = answered(config("study=asked"), group)
    for sample, record in zip(samples, records, strict=True):
        assert record["prediction"] == expected[sample.id]["prediction"]
        assert 0 < record["output_tokens"] <= 3
        assert record["score"] is None
    words = [record["prediction"].split()[0] for record in records]
    again = [
        Request(one.task, one.split, one.doc, one.text, one.visual, (word, "hedgehog" if word == "red" else "red"))
        for one, word in zip(requests, words, strict=True)
    ]
    (group,) = asked(again, tmp_path)
    _, records = answered(config("study=asked"), group)
    assert [record["greedy"][0] for record in records] == [True] * len(words)
    assert not any(record["greedy"][1] for record in records)


def test_a_finished_point_is_read_and_another_text_is_another_point(config, tmp_path):
    samples = build(config(), "benchmark").samples[:3]
    requests = requests_for(config(), samples, max_new_tokens=2)
    (group,) = asked(requests, tmp_path)
    first, records = answered(config("study=asked"), group)
    stamp = (first / "metrics.json").stat().st_mtime_ns
    second, same = answered(config("study=asked"), group)
    assert (second, same) == (first, records)
    assert (first / "metrics.json").stat().st_mtime_ns == stamp
    (other,) = asked([*requests[:2], Request("toy", "test", 2, "how many ?", requests[2].visual, (), 2)], tmp_path)
    assert answered(config("study=asked"), other)[0] != first


def test_unreadable_clips_fail_and_are_not_answered(config, tmp_path):
    write_mp4(tmp_path / "good.mp4", numbered_frames(8, 96, 96))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    clips = ["good.mp4", "bad.mp4", "good.mp4"]
    requests = [Request("t", "test", n, "how many ?", str(tmp_path / clip), (), 2) for n, clip in enumerate(clips)]
    (group,) = asked(requests, tmp_path)
    with pytest.raises(PointFailed, match="1 of 3 samples"):
        answered(config("study=asked"), group)
    _, records = answered(config("study=asked", "job.max_failed_fraction=0.5"), group)
    assert [record["status"] for record in records] == ["ok", "unreadable_video", "ok"]
    assert records[1]["prediction"] is None


def test_requests_that_no_clip_answers(tmp_path):
    def one(visual, text="how many ?"):
        return [Request("t", "test", 7, text, visual)]

    bounded = {"path": "a.mp4", "video_start": "soon"}
    cases = [([], "neither clip nor image"), (None, "neither"), (["a.mp4", "b.mp4"], "2 clips"), ([3], "got int")]
    for visual, words in [*cases, ([bounded], "seconds")]:
        with pytest.raises(RequestError, match=words) as error:
            asked(one(visual), tmp_path)
        assert str(error.value).startswith("t, document 7: ")
    with pytest.raises(RequestError, match="no question"):
        asked(one(["a.mp4"], " <video>\n"), tmp_path)


def test_clips_images_and_groups(tmp_path):
    picture = Image.fromarray(numbered_frames(8)[5])
    requests = [
        Request("a", "test", 0, "<image>\nwhat?", [f"{tmp_path}/x/1.mp4"]),
        Request("a", "test", 0, "what else?", [f"{tmp_path}/x/1.mp4"]),
        Request(
            "a", "test", 1, "what?", {"type": "video", "url": f"{tmp_path}/y/1.mp4", "video_start": 2, "video_end": 3.5}
        ),
        Request("b", "val", 1, "what?", [picture, picture]),
        Request("b", "val", 2, "what?", [picture, picture], ("a", "b")),
    ]
    first, second, third = asked(requests, tmp_path / "images")
    assert [sample.id for sample in first.benchmark.samples] == ["0", "0.2", "1"]
    assert [sample.question for sample in first.benchmark.samples] == ["what?", "what else?", "what?"]
    assert [sample.clip_id for sample in first.benchmark.samples] == ["x/1.mp4", "x/1.mp4", "y/1.mp4"]
    assert [(sample.start, sample.end) for sample in first.benchmark.samples] == [(None, None), (None, None), (2, 3.5)]
    assert (second.benchmark.scoring, third.benchmark.scoring) == ("generate", "cloze")
    frames = second.benchmark.samples[0].clip
    assert frames == third.benchmark.samples[0].clip
    assert sorted(path.name for path in frames.iterdir()) == ["00000.png", "00001.png"]
    assert Image.open(frames / "00001.png").tobytes() == picture.tobytes()


def test_several_devices_and_apis_are_refused(config, tmp_path):
    (group,) = asked([Request("t", "test", 0, "how many ?", f"{tmp_path}/a.mp4")], tmp_path)
    with pytest.raises(ConfigError, match="one device"):
        RequestPoint(config("trainer.devices=2"), group)
