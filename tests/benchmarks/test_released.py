"""Sets in the layouts in which they are released: small files with their columns, as JSON and as parquet."""

import json

import pytest

from composed import composed
from videopool.benchmarks import BenchmarkError, contradictions, load_released
from videopool.benchmarks.released import split_options, without_letters
from videopool.config.build import build

TEMPCOMPASS = {
    "v1": {"direction": [{"question": "Which way?\nA. up\nB. down", "answer": "B. down"}]},
    "v1_reverse": {"direction": [{"question": "Which way?\nA. up\nB. down", "answer": "A. up"}]},
}
YES_NO = {
    "v1": {
        "action": [{"question": "Is he dunking?", "answer": "yes"}],
        "speed": [{"question": "Is it slow?", "answer": "no"}],
    }
}
PERCEPTION = {
    "video_1": {
        "metadata": {"split": "valid", "video_id": "video_1", "frame_rate": 29.97},
        "object_tracking": [],
        "mc_question": [
            {"id": 0, "question": "Is it moving?", "options": ["no", "yes", "unclear"], "answer_id": 1,
             "area": "physics", "reasoning": "descriptive", "tag": ["motion"]},
            {"id": 3, "question": "How many?", "options": ["2", "3", "1"], "answer_id": 2, "area": "memory",
             "reasoning": "explanatory", "tag": ["counting"]},
        ],
    }
}  # fmt: skip
LVBENCH = {
    "key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": {"duration_minutes": 65, "fps": 25.0},
    "qa": [
        {"uid": "0", "question": "What year?\n(A) 1636\n(B) 1366\n(C) 1363", "answer": "C",
         "question_type": ["key information retrieval"], "time_reference": "00:15-00:19"},
        {"uid": "1", "question": "Who?\n(A) a\n(B) b", "answer": "A", "time_reference": "00:20-00:21",
         "question_type": ["reasoning", "event understanding"]},
    ],
}  # fmt: skip
MOTION = {
    "key": "k", "video_path": "k.mp4", "video_type": "web", "question_type": "Repetition Count",
    "video_info": {"fps": 25.0},
    "qa": [{"uid": "u1", "question": "How often?\nA. 1\nB. 2\nC. 3", "answer": "B", "start": 0, "end": 4}],
}  # fmt: skip
TOMATO = {
    "question": "How many?", "options": ["2", "1", "3"], "answer": 2, "key": "0209-03", "video_source_url": "",
    "motion_type": "count", "demonstration_type": "human", "variation": {"zoom": 1}, "note": "",
}  # fmt: skip
LONG = {
    "video_id": "86CxyhFV9MI", "video_path": "86CxyhFV9MI.mp4", "subtitle_path": "86CxyhFV9MI_en.json",
    "question": "What colour?", "question_wo_referring_query": "Colour?", "correct_choice": 1, "duration": 10.0,
    "duration_group": 15, "question_category": "TOS", "topic_category": "NP", "level": "IntraMoment",
    "id": "86CxyhFV9MI_0", "starting_timestamp_for_subtitles": 100.0, "position": [3], "view_count": 7,
}  # fmt: skip
MLVU = {
    "video": "movie101_66.mp4", "duration": 246.0, "question": "What colour?", "candidates": ["Yellow", "Red"],
    "answer": "Yellow", "question_type": "plotQA",
}  # fmt: skip
NEXT = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n25,719,320,240,why,2,8,TN,a,b,c,d,e\n"
INTENT = (
    "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4,action,lemma,lemma_id\n"
    "61,9,6,3,why,4,2,CW,a,b,c,d,e,play,play,1\n61,9,6,3,how,0,3,CH,a,b,c,d,a,play,play,1\n"
)
TGIF = (
    "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription\n"
    'tumblr_a\twhat is the "cat" on ?\tbed\t0\tFRAMEQA1\t27\ta cat is on a bed .\n'
    "tumblr_a\twhat is the color ?\tred\t2\tFRAMEQA2\t27\ta red cat .\n"
).replace('"cat"', "cat")
# Files; id; and, of each sample: id, clip's name, options, answer, task.
RELEASES = {
    "tempcompass": (
        {"multi-choice.json": TEMPCOMPASS}, "tempcompass/test",
        [("000000", "v1", ("up", "down"), "down", "direction"),
         ("000001", "v1_reverse", ("up", "down"), "up", "direction")],
    ),
    "tempcompass_yes_no": (
        {"yes_no.json": YES_NO}, "tempcompass_yes_no/test",
        [("000000", "v1", ("yes", "no"), "yes", "action"), ("000001", "v1", ("yes", "no"), "no", "speed")],
    ),
    "perceptiontest": (
        {"mc_question_valid.json": PERCEPTION}, "perceptiontest/val",
        [("video_1_0", "video_1", ("no", "yes", "unclear"), "yes", "physics"),
         ("video_1_3", "video_1", ("2", "3", "1"), "1", "memory")],
    ),
    "lvbench": (
        {"video_info.meta.jsonl": [LVBENCH]}, "lvbench/test",
        [("0", "Cm73ma6Ibcs", ("1636", "1366", "1363"), "1363", "key information retrieval"),
         ("1", "Cm73ma6Ibcs", ("a", "b"), "a", "event understanding + reasoning")],
    ),
    "motionbench": (
        {"video_info.meta.jsonl": [MOTION, {**MOTION, "qa": [{**MOTION["qa"][0], "uid": "u2", "answer": "NA"}]}]},
        "motionbench/dev", [("u1", "k.mp4", ("1", "2", "3"), "2", "Repetition Count")],
    ),
    "tomato": (
        {"data/count.json": {"0": TOMATO, "4": {**TOMATO, "demonstration_type": "object"}},
         "data/shape&trend.json": {"0": {**TOMATO, "motion_type": "shape&trend"}}}, "tomato/test",
        [("count/0", "human/0209-03", ("2", "1", "3"), "3", "count"),
         ("count/4", "object/0209-03", ("2", "1", "3"), "3", "count"),
         ("shape&trend/0", "human/0209-03", ("2", "1", "3"), "3", "shape&trend")],
    ),
    "tvbench": (
        {f"json/{task}.json": [{"video": "a.mp4", "question": "?", "candidates": ["x", "y"], "answer": "y",
                                **({"start": 1.5, "end": 2} if task == "action_sequence" else {})}]
         for task in ("action_antonym", "action_count", "action_localization", "action_sequence", "egocentric_sequence",
                      "moving_direction", "object_count", "object_shuffle", "scene_transition", "unexpected_action")},
        "tvbench/test",
        [(f"{n:06d}", f"{task}/a.mp4", ("x", "y"), "y", task) for n, task in enumerate(
            ("action_antonym", "action_count", "action_localization", "action_sequence", "egocentric_sequence",
             "moving_direction", "object_count", "object_shuffle", "scene_transition", "unexpected_action"))],
    ),
    "longvideobench": (
        {"lvb_val.json": [{**LONG, "candidates": ["red", "blue", "N/A"]}]}, "longvideobench/val",
        [("86CxyhFV9MI_0", "86CxyhFV9MI.mp4", ("red", "blue"), "blue", "8-15 s")],
    ),
    "mlvu": (
        {"json/1_plotQA.json": [MLVU], "json/2_needle.json": [{**MLVU, "question_type": "findNeedle"}],
         **{f"json/{name}.json": [{**MLVU, "question_type": name[2:]}]
            for name in ("3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning")},
         "json/8_sub_scene.json": [{"video": "s.mp4", "question": "Describe", "answer": "long"}]}, "mlvu/dev",
        [("000000", "1_plotQA/movie101_66.mp4", ("Yellow", "Red"), "Yellow", "plotQA"),
         ("000001", "2_needle/movie101_66.mp4", ("Yellow", "Red"), "Yellow", "findNeedle"),
         *((f"{n - 1:06d}", f"{n}_{name}/movie101_66.mp4", ("Yellow", "Red"), "Yellow", name) for n, name in
           ((3, "ego"), (4, "count"), (5, "order"), (6, "anomaly_reco"), (7, "topic_reasoning")))],
    ),
    "mlvu_test": (
        {"test_mcq_gt.json": [{**MLVU, "question_id": "AR_0", "question_type": "sportsQA"}]}, "mlvu/test",
        [("AR_0", "movie101_66.mp4", ("Yellow", "Red"), "Yellow", "sportsQA")],
    ),
    "egoschema_full": (
        {"questions.json": [{"q_uid": "q-1", "google_drive_id": "g", "question": "What?",
                             **{f"option {n}": f"C does {n}." for n in range(5)}}]}, "egoschema/full",
        [("q-1", "q-1", tuple(f"C does {n}." for n in range(5)), "", "")],
    ),
    "next_qa_test": ({"test.csv": NEXT}, "next_qa/test", [("25_8", "25", tuple("abcde"), "c", "TN")]),
    "intent_qa_test": (
        {"test.csv": INTENT}, "intent_qa/test",
        [("61_2", "61", tuple("abcde"), "e", "CW"), ("61_3", "61", tuple("abcda"), "a", "CH")],
    ),
    "tgif_qa_official": (
        {"Test_frameqa_question.csv": TGIF}, "tgif_qa/test",
        [("FRAMEQA1", "tumblr_a", (), "bed", "object"), ("FRAMEQA2", "tumblr_a", (), "red", "color")],
    ),
    "msrvtt_qa_official": (
        {"test_qa.json": [{"answer": "couch", "category_id": 14, "id": 158581, "question": "what?", "video_id": 7010}]},
        "msrvtt_qa/test", [("158581", "video7010", (), "couch", "")],
    ),
    "msvd_qa_official": (
        {"test_qa.json": [{"answer": "man", "id": 30933, "question": "who?", "video_id": 1301}]}, "msvd_qa/test",
        [("30933", "vid1301", (), "man", "")],
    ),
}  # fmt: skip
# The same as parquet, where columns differ: rows, and whose samples they are.
PARQUETS = {
    "tempcompass": [
        {"video_id": "v1", "question": "Which way?\nA. up\nB. down", "answer": "B. down", "dim": "direction"},
        {"video_id": "v1_reverse", "question": "Which way?\nA. up\nB. down", "answer": "A. up", "dim": "direction"},
    ],
    "tempcompass_yes_no": [
        {"video_id": "v1", "question": "Is he dunking?", "answer": "yes", "dim": "action"},
        {"video_id": "v1", "question": "Is it slow?", "answer": "no", "dim": "speed"},
    ],
    "perceptiontest": [
        {"video_name": "video_1", "question_id": str(own["id"]), **{name: own[name] for name in own if name != "id"},
         "answer_id": str(own["answer_id"])} for own in PERCEPTION["video_1"]["mc_question"]
    ],
    "lvbench": [{"video_path": "Cm73ma6Ibcs", "type": "x", **own} for own in LVBENCH["qa"]],
    "longvideobench": [{**LONG, "option0": "red", "option1": "blue", **{f"option{n}": "N/A" for n in (2, 3, 4)}}],
    "egoschema_full": [{"question_idx": "0", "question": "What?", "video_idx": "q-1", "answer": None,
                        "option": [f"{letter}. C does {n}." for n, letter in enumerate("ABCDE")]}],
}  # fmt: skip


@pytest.fixture
def load(tmp_path):
    """A benchmark by name and annotations, and words that a user gives."""

    def loaded(name, annotations, *words):
        chosen = [f"benchmark={name}", f"benchmark.root={tmp_path}", f"benchmark.annotations={annotations}"]
        return build(composed(*chosen, *words), "benchmark")

    return loaded


def write(folder, files):
    """Files by name: text, lines of JSON, or JSON. Returns the one file, or the folder of several."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text("\n".join(map(json.dumps, content)) if name.endswith("l") else text)
    return path if len(files) == 1 else path.parent


def facts(benchmark):
    return [(s.id, s.clip_id, s.options, s.answer, s.task) for s in benchmark.samples]


@pytest.mark.parametrize("name", RELEASES)
def test_released_files(load, tmp_path, name):
    files, identity, expected = RELEASES[name]
    benchmark = load(name, write(tmp_path, files))
    assert (benchmark.id, facts(benchmark)) == (identity, expected)
    assert not any(s.options and "\n" in s.question for s in benchmark.samples)


@pytest.mark.parametrize("name", PARQUETS)
def test_parquet(load, tmp_path, name):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet")
    from pyarrow import parquet

    _, identity, expected = RELEASES[name]
    table = pyarrow.Table.from_pylist(PARQUETS[name])
    table = table.append_column("video", pyarrow.array([{"bytes": b"x", "path": "p"}] * len(table)))  # is not read
    parquet.write_table(table, tmp_path / "part-00000-of-00001.parquet")
    benchmark = load(name, tmp_path / "part-00000-of-00001.parquet")
    assert (benchmark.id, facts(benchmark)) == (identity, expected)


def test_parquet_of_mlvu(load, tmp_path):
    """Options stand in a list and, lettered, in the question; the answer is a letter."""
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet")
    from pyarrow import parquet

    row = {"video_name": "1.mp4", "question": "What?\n(A) Yellow\n(B) Red", "candidates": ["Yellow", "Red"]}
    rows = [{**row, "answer": "B", "task_type": "plotQA"}, {**row, "answer": "A", "task_type": "count"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "dev.parquet")
    first, second = load("mlvu", tmp_path / "dev.parquet").samples
    assert (first.question, first.options, first.answer, second.answer) == ("What?", ("Yellow", "Red"), "Red", "Yellow")


def test_one_bad_entry_is_left_out(load, tmp_path, capsys):
    """An answer that is no candidate, though it could be a place."""
    rows = [{**MLVU, "candidates": ["3", "4", "5"], "answer": "4"} for _ in range(200)]
    rows[7] = {**rows[7], "answer": "1"}
    path = write(tmp_path, {"count.json": rows})
    benchmark = load("mlvu", path)
    assert len(benchmark.samples) == 199
    assert "000007" not in {s.id for s in benchmark.samples}  # and the others keep their names
    line = capsys.readouterr().err
    assert "mlvu/dev: 1 of 200 rows cannot be used and are left out; the first:" in line
    assert "count.json, entry 7: the answer '1' is not among the options ['3', '4', '5']" in line
    with pytest.raises(BenchmarkError, match="entry 7: the answer '1' is not among"):
        load("mlvu", path, "benchmark.bad_rows=refuse", "benchmark.answers=text")
    rows[8:12] = [{**row, "answer": "1"} for row in rows[8:12]]
    with pytest.raises(BenchmarkError, match=r"5 of 200 rows cannot be used; the first: .*entry 7"):
        load("mlvu", write(tmp_path, {"count.json": rows}))


def test_dev_and_test_of_mlvu_do_not_mix(load, tmp_path):
    path = write(tmp_path, RELEASES["mlvu_test"][0])
    with pytest.raises(BenchmarkError, match=r"test_mcq_gt\.json is by its name of the split 'test', not 'dev'"):
        load("mlvu", path)


def test_parquet_that_the_hub_calls_by_another_split(load, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet")
    from pyarrow import parquet

    row = {"video_name": "1.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "A", "task_type": "ego"}
    path = tmp_path / "test-00000-of-00001.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    assert load("mlvu", path).id == "mlvu/dev"
    assert load("mlvu_test", path).id == "mlvu/test"
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "task_type": "sportsQA"}]), path)
    with pytest.raises(BenchmarkError, match=r"of the kind 'sportsQA', which are of the split 'test', not 'dev'"):
        load("mlvu", path)
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "task_type": "findNeedle"}]), path)
    with pytest.raises(BenchmarkError, match=r"of the kind 'findNeedle', which are of the split 'dev', not 'test'"):
        load("mlvu_test", path)
    path = path.rename(tmp_path / "train-00000-of-00001.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(PARQUETS["lvbench"]), path)
    assert load("lvbench", path).id == "lvbench/test"
    parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    with pytest.raises(BenchmarkError, match="by its name of the split 'train', not 'dev'"):
        load("mlvu", path)


def test_questions_of_several_kinds_count_for_each(load, tmp_path):
    groups = load("lvbench", write(tmp_path, RELEASES["lvbench"][0])).groups
    assert groups["reasoning"] == groups["event understanding"] == ["event understanding + reasoning"]
    assert groups["key information retrieval"] == ["key information retrieval"]


def test_questions_without_answers(load, tmp_path):
    path = write(tmp_path, RELEASES["motionbench"][0])
    (hidden,) = load("motionbench", path, "benchmark.unanswered=only", "benchmark.split=test").samples
    assert (hidden.id, hidden.answer, hidden.options) == ("u2", "", ("1", "2", "3"))
    assert len(load("motionbench", path, "benchmark.unanswered=keep").samples) == 2
    with pytest.raises(BenchmarkError, match=r"benchmark\.unanswered='no': choose one of keep, leave_out, only"):
        load("motionbench", path, "benchmark.unanswered='no'")


def test_a_folder_that_lacks_a_part(load, tmp_path):
    write(tmp_path, {"json/1_plotQA.json": [MLVU], "json/2_needle.json": [MLVU]})
    with pytest.raises(BenchmarkError, match=r"annotations=.*json: there is no 3_ego\.json"):
        load("mlvu", tmp_path / "json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkError, match=r"empty: there is no annotation file"):
        load("tomato", tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"v": [1]}, r"q\.json, 'v': an object with one entry for each dim is expected, got list"),
        ({"v": {"d": [1]}}, r"q\.json, 'v', 'd', entry 0: an object is expected, got int"),
        ({"v": {}}, "no usable sample"),
        ({"v": {"d": [{"question": "q\nA. x\nB. y", "answer": "C. z"}]}}, "the answer 'C' is not among the options"),
        ({"v": {"d": [{"answer": "A"}]}}, "the column 'question' is missing"),
    ],
)
def test_files_nested_otherwise(load, tmp_path, content, words):
    with pytest.raises(BenchmarkError, match=words):
        load("tempcompass", write(tmp_path, {"q.json": content}))


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("Who?\nA. me\nB. you", "Who?", ["me", "you"]),
        ("Who?\n(A) me\n(B) you,\nor him", "Who?", ["me", "you,\nor him"]),
        ("Order of\nA. a\nB. b\nC. c?\nA. abc\nB. cab", "Order of\nA. a\nB. b\nC. c?", ["abc", "cab"]),
        ("Who?\nOptions:\n(A) me\n(B) you", "Who?", ["me", "you"]),
        ("Who has options:\nA. me\nB. you", "Who has options:", ["me", "you"]),
        ("Is U.S. A. here?", "Is U.S. A. here?", []),
        ("A. me\nB. you", "A. me\nB. you", []),
        ("Who?\nA. me\nC. you", "Who?\nA. me\nC. you", []),
    ],
)
def test_options_in_a_question(text, question, options):
    assert split_options(text) == (question, options)


def test_letters_go_only_where_they_are_in_order():
    assert without_letters(["A. Smith", "C. Jones"]) == []
    assert without_letters(["A: x", "B) y"]) == ["x", "y"]


def test_contradictions_bound_the_exact_match(tmp_path):
    asked = [("c", "what?", "sit"), ("c", "what?", "sit"), ("c", "what?", "wear"), ("c", "who?", "man")]
    rows = [{"video_name": clip, "question": question, "answer": answer} for clip, question, answer in asked]
    benchmark = load_released(tmp_path, write(tmp_path, {"q.json": rows}), "x", "own")
    assert contradictions(benchmark) == (
        "benchmark x/own: 3 of 4 questions are asked of their clip again, with another answer: "
        "exact match cannot pass 75.0 %"
    )
    assert contradictions(load_released(tmp_path, write(tmp_path, {"q.json": rows[2:]}), "x", "own")) == ""
