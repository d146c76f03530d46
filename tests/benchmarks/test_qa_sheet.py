"""Sheets of questions: answers as text, place or letter, ids, bounds, and what is refused."""

import json

import pytest

from videopool.benchmarks import BenchmarkError, load_qa_sheet


def sheet(folder, lines, name="q.csv"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(folder, lines, **settings):
    return load_qa_sheet(folder, sheet(folder, lines), **settings)


HEAD = "video_name,question,answer,a0,a1,a2"


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        (["v,q,x,x,y,z", "v,q,z,x,y,z"], {}, ["x", "z"]),
        (["v,q,0,x,y,z", "v,q,2,x,y,z"], {}, ["x", "z"]),
        (["v,q,A,x,y,z", "v,q,c,x,y,z"], {}, ["x", "z"]),
        # One sheet, one meaning: 1 is a place here, though it is an option of the second question too.
        (["v,q,1,x,y,z", "v,q,1,3,2,1"], {}, ["y", "2"]),
        (["v,q,1,2,1,0", "v,q,1,3,2,1"], {}, ["1", "1"]),
        (["v,q,1,2,1,0", "v,q,1,3,2,1"], {"answers": "index"}, ["1", "2"]),
        (["v,q,B,B,A,C"], {}, ["B"]),
        (["v,q,B,B,A,C"], {"answers": "letter"}, ["A"]),
        # A sheet that mixes them: a text, or else a place.
        (["v,q,x,x,y,z", "v,q,2,x,y,z"], {}, ["x", "z"]),
        (["v,q,,x,y,z", "v,q,z,x,y,z"], {}, ["", "z"]),
        (["v,q, y ,x,y ,z"], {}, ["y"]),
        (["v,q,x,x,x,z"], {}, ["x"]),
    ],
)
def test_what_answers_mean(tmp_path, rows, settings, expected):
    assert [s.answer for s in load(tmp_path, [HEAD, *rows], **settings).samples] == expected


def test_fewer_options_and_none(tmp_path):
    several, two, none = load(tmp_path, [HEAD, "v,q,x,x,y,z", "v,q,y,x,y,", "v,q,dog,,,"]).samples
    assert (several.options, two.options, none.options) == (("x", "y", "z"), ("x", "y"), ())
    assert none.answer == "dog"


def test_options_of_json(tmp_path):
    rows = [
        {"video_name": "v", "question": "how many?", "options": [1, 2, 3], "answer": 2},
        {"video_name": "v", "question": "who?", "candidates": ["me", "you"], "answer": 2},
    ]
    (tmp_path / "q.json").write_text(json.dumps(rows[:1]))
    (sample,) = load_qa_sheet(tmp_path, tmp_path / "q.json").samples
    assert (sample.options, sample.answer) == (("1", "2", "3"), "2")
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        BenchmarkError, match=r"q\.jsonl, line 2: the answer '2' is not among the options \['me', 'you'\]"
    ):
        load_qa_sheet(tmp_path, tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("lines", "settings", "words"),
    [
        ([HEAD, "v,q,w,x,y,z"], {}, "line 2: the answer 'w' is not among the options"),
        ([HEAD, "v,q,3,x,y,z"], {}, "line 2: the answer '3' is not among"),
        ([HEAD, "v,q,-1,x,y,z"], {}, "line 2: the answer '-1' is not among"),
        ([HEAD, "v,q,x,x,y,z", "v,q,w,x,y,z"], {"answers": "letter"}, r"line 2: .*\(benchmark\.answers=letter\)"),
        ([HEAD, "v,q,x,x,y,z"], {"answers": "digit"}, "benchmark.answers='digit': choose one of auto, text"),
        ([HEAD, "v,q,z,x,,z"], {}, "line 2: malformed row: the option 'a1' is empty"),
        ([HEAD, "v,q,x,x,,"], {}, "line 2: malformed row: one option alone, 'x'"),
        ([HEAD, ",q,x,x,y,z"], {}, "line 2: malformed row: the field 'video_name' is empty"),
        ([HEAD, "v,,x,x,y,z"], {}, "line 2: malformed row: the field 'question' is empty"),
        ([HEAD, "/etc/passwd,q,x,x,y,z"], {}, "leads out of"),
        ([HEAD, "a/../../b,q,x,x,y,z"], {}, "leads out of"),
        ([HEAD, "./,q,x,x,y,z"], {}, "names no clip"),
        (["video,question", "v,q"], {}, "the column 'video_name' is missing; there are 'video', 'question'"),
        (["video;question", "v;q"], {}, "line 1: the column 'video_name' is missing; there are 'video', 'question'"),
        (["video_name,question,answer,Answer", "v,q,x,y"], {}, "line 1: 'answer', 'Answer' could all be the column"),
        (["video_name,question,Correct Answer", "v,q,x"], {}, "no column 'answer', and 'Correct Answer'"),
        (["video_name,question", "v,q"], {"columns": {"video": "x"}}, "benchmark.columns: 'video' is none of"),
        (["video_name,question,start,end", "v,q,5,2"], {}, r"the field 'start' \(5 s\) comes after 'end' \(2 s\)"),
        (["video_name,question,end", "v,q,x"], {}, "line 2: the field 'end' must be a number"),
        (["video_name,question,fps", "v,q,0"], {}, "the field 'fps' must be above 0"),
        (["video_name,question,question_id", "v,q,7", "v,r,8", "w,q,7"], {},
         "line 4: the question_id '7' stands twice; first in .*line 2"),
        (["video_name,question,question_id", "v,q,7"], {"repeated_ids": "drop"}, "choose one of refuse, number"),
        (["video_name,question", "v,q"], {"columns": {"question_id": "qid"}}, "the column 'qid' is missing"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, lines, settings, words):
    with pytest.raises(BenchmarkError, match=words) as error:
        load(tmp_path, lines, **settings)
    assert "\n" not in str(error.value)


def test_repeated_ids_can_be_numbered(tmp_path):
    lines = ["video_name,question,question_id", "v,q,7", "v,r,7", "w,q,8", "w,r,7", "w,s,"]
    samples = load(tmp_path, lines, repeated_ids="number").samples
    assert [s.id for s in samples] == ["7", "7#2", "8", "7#3", "000004"]


def test_tasks_groups_and_limit(tmp_path):
    lines = ["video_name,question,question_type", "v,q,0", "v,q,1", "v,q,5"]
    groups = {"first": ["motion"]}
    benchmark = load(tmp_path, lines, task_names={0: "motion", "1": "place"}, groups=groups, headline="first")
    assert [s.task for s in benchmark.samples] == ["motion", "place", "5"]
    assert benchmark.in_headline("motion")
    assert not benchmark.in_headline("place")
    assert len(load(tmp_path, lines, limit=2).samples) == 2
    assert benchmark.id == "qa_sheet/own"


def test_bounds_and_frame_rates(tmp_path):
    lines = ["video_name,question,start,end,fps", "v,q,1.5,4,", "v,q,,,12", "v_2_7.5,q,,,"]
    first, second, third = load(tmp_path, lines, fps=5).samples
    assert (first.start, first.end, first.fps) == (1.5, 4.0, 5.0)
    assert (second.start, second.end, second.fps) == (None, None, 12.0)
    assert (third.clip_id, third.start) == ("v_2_7.5", None)
    stretch = load(tmp_path, lines, bounds_in_name=True).samples[2]
    assert (stretch.clip_id, stretch.start, stretch.end) == ("v", 2.0, 7.5)


def test_bounds_are_part_of_what_a_point_is(tmp_path):
    lines = ["video_name,question", "v_2_7.5,q"]
    whole, stretch = load(tmp_path, lines), load(tmp_path, lines, bounds_in_name=True)
    assert whole.annotation_hash == stretch.annotation_hash
    assert whole.samples_hash != stretch.samples_hash


def test_the_hash_follows_the_file(tmp_path):
    before = load(tmp_path, ["video_name,question", "v,q"]).annotation_hash
    assert load(tmp_path, ["video_name,question", "v,q"]).annotation_hash == before
    assert load(tmp_path, ["video_name,question", "v,r"]).annotation_hash != before
