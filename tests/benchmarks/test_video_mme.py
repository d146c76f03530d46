"""Video-MME's table, flat and by video."""

import json

import pytest

from videopool.benchmarks import BenchmarkError, load_video_mme

ROW = {
    "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Letters", "url": "https://…/Ab-1",
    "videoID": "Ab-1", "question_id": "001-1", "task_type": "Counting Problem", "question": "How many?",
    "options": ["A. One.", "B. B. is it.", "C. C'est trois.", "D. Four:\nall"], "answer": "C",
}  # fmt: skip


def load(folder, rows, name="test.json", **settings):
    text = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows)
    (folder / name).write_text(text)
    return load_video_mme(folder, folder / name, **settings)


@pytest.mark.parametrize("name", ["test.json", "test.jsonl"])
def test_flat(tmp_path, name):
    (tmp_path / "Ab-1.mp4").touch()
    rows = [ROW, {**ROW, "question_id": "001-2", "answer": "d", "duration": "long", "videoID": "Zz"}]
    first, second = load(tmp_path, rows, name).samples
    assert first.options == ("One.", "B. is it.", "C'est trois.", "Four:\nall")
    assert (first.id, first.answer, first.task, first.clip.name) == ("001-1", "C'est trois.", "short", "Ab-1.mp4")
    assert (second.answer, second.task, second.clip_id) == ("Four:\nall", "long", "Zz")
    assert load(tmp_path, rows, tasks="task_type").samples[0].task == "Counting Problem"
    assert load(tmp_path, rows).id == "video_mme/test"


def test_by_video(tmp_path):
    shared = {name: ROW[name] for name in ("video_id", "duration", "domain", "sub_category")}
    own = {name: value for name, value in ROW.items() if name not in shared and name != "videoID"}
    rows = [{**shared, "questions": [own, {**own, "question_id": "001-2", "answer": "A"}]}]
    first, second = load(tmp_path, rows).samples
    assert (first.clip_id, first.answer) == ("001", "C'est trois.")
    assert (second.id, second.answer, second.task) == ("001-2", "One.", "short")


def test_the_release_by_video(tmp_path):
    """The JSON of the release calls nearly everything otherwise than its table."""
    question = {name: ROW[name] for name in ("question_id", "task_type", "question", "answer")}
    video = {
        "video_id": "001", "duration_category": "short", "video_category": "Knowledge",
        "video_subcategory": "Humanity & History",
        "questions": [{**question, "choices": ROW["options"]}],
    }  # fmt: skip
    (tmp_path / "001.mp4").touch()
    (sample,) = load(tmp_path, [video]).samples
    assert (sample.id, sample.clip.name, sample.task) == ("001-1", "001.mp4", "short")
    assert (sample.options[0], sample.answer) == ("One.", "C'est trois.")
    assert load(tmp_path, [video], tasks="sub_category").samples[0].task == "Humanity & History"
    assert load(tmp_path, [video], tasks="domain").samples[0].task == "Knowledge"


def test_options_without_letters_stay(tmp_path):
    rows = [
        {**ROW, "options": ["A. Smith", "C. Jones"], "answer": "B"},
        {**ROW, "question_id": "2", "options": ["x", "y"]},
    ]
    assert load(tmp_path, rows[:1]).samples[0].answer == "C. Jones"
    with pytest.raises(BenchmarkError, match=r"entry 1: the answer 'C' is not among the options \['x', 'y'\]"):
        load(tmp_path, rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": "A. x"}, "entry 0: the field 'options' must be a list, got str"),
        ({"options": ["A. x", 3.5, None]}, "the option 'options' is empty|not among"),
        ({"answer": "E"}, "entry 0: the answer 'E' is not among the options"),
        ({"question": ""}, "the field 'question' is empty"),
        ({"videoID": ""}, "the field 'video_name' is empty"),
        ({"videoID": "../x"}, "leads out of"),
        ({"questions": [1]}, "the field 'questions' must be a list of objects"),
    ],
)
def test_bad_entries(tmp_path, changes, words):
    with pytest.raises(BenchmarkError, match=words):
        load(tmp_path, [{**ROW, **changes}])


def test_a_wrong_breakdown(tmp_path):
    with pytest.raises(BenchmarkError, match=r"benchmark\.tasks='length': choose one of duration, domain"):
        load(tmp_path, [ROW], tasks="length")
