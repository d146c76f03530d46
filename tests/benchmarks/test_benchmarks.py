"""Loaders, prompts and answer parsing."""

import gc
import json
from dataclasses import fields
from pathlib import Path

import pytest

from videopool.benchmarks import BenchmarkError, Prompt, Sample, load_clips, load_mvbench, load_qa_sheet
from videopool.benchmarks.benchmark import line_of
from videopool.benchmarks.letters import parse_letter
from videopool.benchmarks.scoring import exact_match, token_f1

OPTIONS = ["a cat", "dog", "yes", "no"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A", 0), ("(A)", 0), ("b", 1), ("B.", 1), ("B) dog", 1), ("B: dog", 1), ("(B) dog", 1), ("b ) dog", 1),
        ("answer is A", 0), ("The answer is (B).", 1), ("Best option: (D) no", 3), ("The best option is C", 2),
        ("dog", 1), ("Dog.", 1), ("a cat", 0), ("The cat", 0), (" D\n", 3), ("Answer: B. dog", 1),
        ("", None), ("E", None), ("(A)(B)", None), ("A or B", None), ("(B) yes", None), ("I cannot tell", None),
        ("a dog is there", None), ("answer is a mouse", None), ("maybe", None), ("cat or dog", None),
    ],
)  # fmt: skip
def test_letters_are_parsed_strictly(text, place):
    assert parse_letter(text, OPTIONS) == place


def test_exact_match_forgives_form_only():
    assert exact_match("The Dog.", "dog")
    assert exact_match(" two  men ", "two men")
    assert not exact_match("dogs", "dog")
    assert not exact_match("", "dog")


PLAIN = Prompt("USER: {image}\n{question} ASSISTANT:", "{question} {options}", "({letter}) {text}", " ", " (", "say.")


@pytest.mark.parametrize(
    ("said", "answer", "f1"),
    [
        ("a brown dog", "The dog.", 2 * 1 / 3),  # brown dog against dog
        ("dog dog dog", "dog cat", 2 * 1 / 5),  # a word counts as often as it stands in both
        ("running", "running", 1.0),
        ("cat", "dog", 0.0),
        ("the", "a", 1.0),  # nothing is left of either
        ("the", "dog", 0.0),
    ],
)
def test_token_f1(said, answer, f1):
    assert token_f1(said, answer) == pytest.approx(f1)


def test_prompts_are_written_out_exactly():
    assert PLAIN.text("who?") == "USER: <image>\nwho? ASSISTANT:"
    assert PLAIN.text("who?", ["me", "you"]) == "USER: <image>\nwho? (A) me (B) you ASSISTANT: ("
    assert PLAIN.text("what is {options} and {image}?", ["{question}"]) == (
        "USER: <image>\nwhat is {options} and {image}? (A) {question} ASSISTANT: ("
    )
    assert PLAIN.text("who?", ["me", "you"]).endswith(PLAIN.answer_start)
    with pytest.raises(ValueError, match=r"prompt\.template must hold \{image\} exactly once"):
        Prompt("{question}", "{question} {options}", "{letter}{text}", "", "", "")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"options": ("a", 'b "c"', "d\\\n\u00e9\U0001f600"), "answer": "a", "task": "t", "pair": "p", "judged": True},
        {"start": 0.0, "end": 1e-7, "fps": 29.97},
        {"start": 1, "end": 1e22, "fps": 3},
        {"id": "\udcff", "clip_id": "a/b \u2028\x00", "options": ("",)},
    ],
)
def test_samples_are_hashed_as_their_json(settings):
    sample = Sample(**{"id": "i", "clip": Path("x.mp4"), "clip_id": "c", "question": "q?", **settings})
    values = {field.name: getattr(sample, field.name) for field in fields(sample)}
    assert line_of(sample) == json.dumps({**values, "clip": None}, sort_keys=True)


def test_the_collector_is_on_after_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question\nv\n")
    with pytest.raises(BenchmarkError, match="line 2"):
        load_qa_sheet(tmp_path, tmp_path / "q.csv")
    assert gc.isenabled()


def mvbench(folder, rows):
    (folder / "json").mkdir(parents=True)
    (folder / "json" / "task.json").write_text(json.dumps(rows))
    return folder


ROW = {"video": "a.mp4", "question": "q", "candidates": ["x", "y"], "answer": "y"}


def test_mvbench_rows(tmp_path):
    mvbench(tmp_path, [ROW, {**ROW, "start": 1, "end": 2.5, "video": "b/c.mp4"}])
    benchmark = load_mvbench(tmp_path, "mvbench")
    first, second = benchmark.samples
    assert (first.id, first.task) == ("task/00000", "task")
    assert (second.start, second.end, second.clip) == (1.0, 2.5, tmp_path / "video" / "b" / "c.mp4")
    assert load_mvbench(tmp_path, "mvbench", limit=1).samples_hash != benchmark.samples_hash


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROW, {**ROW, "answer": "z"}], "entry 1: the answer 'z' is not among the candidates"),
        ([{"video": "a.mp4"}], "entry 0: malformed row: the field 'question' is missing"),
        ([{**ROW, "video": "../../secret.mp4"}], "leads out of"),
        ([{**ROW, "video": "/etc/passwd"}], "leads out of"),
        ([], "no usable sample"),
        ([{**ROW, "question_id": 1}, {**ROW, "question_id": 1}], "'1' stands twice"),
        (
            [{**ROW, "candidates": [str(n) for n in range(27)], "answer": "3"}],
            "27 options; there are letters for 26 .*cloze",
        ),
        ({"rows": []}, "a list of objects is expected"),
        ([3], "an object is expected"),
    ],
)
def test_bad_mvbench_files(tmp_path, rows, words):
    mvbench(tmp_path, rows)
    with pytest.raises(BenchmarkError, match=words):
        load_mvbench(tmp_path, "mvbench")


def test_more_options_than_letters_are_for_cloze(tmp_path):
    mvbench(tmp_path, [{**ROW, "candidates": [str(n) for n in range(40)], "answer": "39"}])
    (sample,) = load_mvbench(tmp_path, "mvbench", scoring="cloze").samples
    assert len(sample.options) == 40
    assert PLAIN.text("who?") in PLAIN.text(sample.question.replace("q", "who?"))
    with pytest.raises(BenchmarkError, match="a question with 40 options cannot be put with letters") as error:
        PLAIN.text(sample.question, sample.options)
    assert "\n" not in str(error.value)


def test_missing_annotations(tmp_path):
    with pytest.raises(BenchmarkError, match="there is no folder"):
        load_mvbench(tmp_path, "mvbench")
    (tmp_path / "json").mkdir()
    with pytest.raises(BenchmarkError, match=r"nothing\.json does not exist"):
        load_mvbench(tmp_path, "mvbench", tasks=["nothing"])


def test_clips_with_a_sheet(tmp_path):
    (tmp_path / "a b.mp4").touch()
    sheet = tmp_path / "q.csv"
    sheet.write_text(
        "\ufeffvideo_name,question,answer,a0,a1,question_id\n"
        'a b,"who, ""really""?\nsay",été,été,you,7\n'
        "gone,how many?,1,x,y,8\n"
        "a b.mp4,open?,,,,9\n",
        encoding="utf-8",
    )
    first, second, third = load_clips(tmp_path, sheet).samples
    assert first.question == 'who, "really"?\nsay'
    assert (first.answer, first.options, first.clip.name, first.id) == ("été", ("été", "you"), "a b.mp4", "7")
    assert second.answer == "y"  # a number stands for the option at that place
    assert not second.clip.exists()
    assert (third.options, third.answer) == ((), "")


def test_errors_of_clips_name_their_own_key(tmp_path):
    with pytest.raises(BenchmarkError, match=r"gone\.csv does not exist \(benchmark\.questions\)"):
        load_clips(tmp_path, tmp_path / "gone.csv")
    sheet = tmp_path / "q.csv"
    sheet.write_text("\n\nclip,question,gt,x,y\na,who?,1,me,you\n")
    with pytest.raises(
        BenchmarkError, match=r"line 3: the column 'video_name' is missing; .* benchmark\.columns\.video_name="
    ):
        load_clips(tmp_path, sheet)
    names = {"video_name": "clip", "answer": "gt", "options": ["x", "y"], "question": None}
    (sample,) = load_clips(tmp_path, sheet, columns=names).samples
    assert (sample.clip_id, sample.options, sample.answer) == ("a", ("me", "you"), "you")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("video,question\na,b\n", "the column 'video_name' is missing"),
        ("video_name,question,answer,a0,a1\na,q,z,x,y\n", "line 2: the answer 'z' is not among"),
        ("video_name,question\na,q,extra\n", "line 2: malformed row"),
        ("video_name,question\n,q\n", "line 2: malformed row"),
        ("video_name,question\n../x,q\n", "leads out of"),
        ("video_name,question\n", "no usable sample"),
    ],
)
def test_bad_sheets(tmp_path, content, words):
    (tmp_path / "q.csv").write_text(content)
    with pytest.raises(BenchmarkError, match=words):
        load_clips(tmp_path, tmp_path / "q.csv")


def test_clips_without_a_sheet(tmp_path):
    with pytest.raises(BenchmarkError, match="no video found"):
        load_clips(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("b.MP4", "sub/a.gif", "notes.txt"):
        (tmp_path / name).touch()
    benchmark = load_clips(tmp_path)
    assert [s.id for s in benchmark.samples] == ["b.MP4"]
    assert [s.id for s in load_clips(tmp_path, recursive=True).samples] == ["b.MP4", "sub/a.gif"]
    assert benchmark.id == "clips/own"


def test_real_sheets(shared):
    for name, options in (("MSVD_QA", 0), ("NExT_QA", 5), ("STAR", 4), ("EgoSchema", 5)):
        sheet = shared(f"annotations/{name}.csv")
        samples = load_clips(sheet.parent, sheet).samples
        assert len(samples) == 40
        assert {len(s.options) for s in samples} == {options}
        assert all(s.answer in s.options for s in samples if options)
