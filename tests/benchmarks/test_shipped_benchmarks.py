"""The choices of conf/benchmark: ids and splits, MVBench's folders, and real slices of the released sheets."""

import json
import re
from collections import Counter

import pytest

from composed import composed
from videopool.benchmarks import BenchmarkError, load_mvbench
from videopool.benchmarks.rows import STRETCH
from videopool.config.build import build
from videopool.paths import shipped

# fmt: off
MVBENCH_TASKS = [
    "action_antonym", "action_count", "action_localization", "action_prediction", "action_sequence", "character_order",
    "counterfactual_inference", "egocentric_navigation", "episodic_reasoning", "fine_grained_action",
    "fine_grained_pose", "moving_attribute", "moving_count", "moving_direction", "object_existence",
    "object_interaction", "object_shuffle", "scene_transition", "state_change", "unexpected_action",
]
# fmt: on
# Sheet, id, and in the slice: clips, options, and a task that has been given a word.
SHEETS = {
    "msvd_qa_val": ("MSVD_QA", "msvd_qa/val", 1, 0, ""),
    "msrvtt_qa_val": ("MSRVTT_QA", "msrvtt_qa/val", 2, 0, "14"),
    "activitynet_qa_sheet": ("ActivityNet_QA", "activitynet_qa/test", 35, 0, "yes or no"),
    "tgif_qa_sheet": ("TGIF_FrameQA", "tgif_qa/test", 40, 0, "color"),
    "next_qa": ("NExT_QA", "next_qa/val", 39, 5, "CW"),
    "intent_qa": ("IntentQA", "intent_qa/val", 40, 5, "TN"),
    "egoschema": ("EgoSchema", "egoschema/subset", 40, 5, ""),
    "star": ("STAR", "star/val", 40, 4, "Interaction_T1"),
    "qa_sheet": ("NExT_QA", "qa_sheet/own", 39, 5, "CW"),
}


@pytest.fixture
def load():
    """A benchmark by the words that a user gives."""
    return lambda *words: build(composed(*words), "benchmark")


@pytest.mark.parametrize("name", SHEETS)
def test_real_slices(load, shared, tmp_path, name):
    sheet, identity, clips, options, task = SHEETS[name]
    path = shared(f"annotations/{sheet}.csv")
    benchmark = load(f"benchmark={name}", f"benchmark.root={tmp_path}", f"benchmark.annotations={path}")
    samples = benchmark.samples
    assert (benchmark.id, benchmark.split) == (identity, identity.split("/")[1])
    assert len(samples) == len({s.id for s in samples}) == 40
    assert len({s.clip_id for s in samples}) == clips
    assert {len(s.options) for s in samples} == {options}
    assert all(s.question and s.answer for s in samples)
    assert all(s.answer in s.options for s in samples if options)
    assert task in {s.task for s in samples}
    assert len(benchmark.annotation_hash) == 64
    assert benchmark.scoring == ("likelihood" if options else "generate")


def test_real_slices_of_vcgbench(load, shared, tmp_path):
    folder = shared("annotations/Generic_QA.csv").parent
    samples = load("benchmark=vcgbench", f"benchmark.root={tmp_path}", f"benchmark.annotations={folder}").samples
    assert Counter(s.task for s in samples) == {"generic": 40, "temporal": 40, "consistency": 80}
    pairs = [s for s in samples if s.pair]
    assert set(Counter(s.pair for s in pairs).values()) == {2}
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        assert (first.pair, first.answer, first.clip_id) == (second.pair, second.answer, second.clip_id)
        assert first.question != second.question


def test_stretches_of_the_real_slice_of_star(load, shared, tmp_path):
    path = shared("annotations/STAR.csv")
    words = ("benchmark=star", f"benchmark.root={tmp_path}", f"benchmark.annotations={path}")
    for cut, whole in zip(load(*words).samples, load(*words, "benchmark.bounds_in_name=true").samples, strict=True):
        assert STRETCH.fullmatch(cut.clip_id)
        assert cut.clip_id == f"{whole.clip_id}_{whole.start:g}_{whole.end:g}"
        assert whole.start < whole.end


def test_questions_that_share_a_clips_id(load, tmp_path):
    """The TGIF sheet's question_id is the same for all questions of a clip; its video_id is not."""
    sheet = tmp_path / "TGIF_FrameQA.csv"
    sheet.write_text(
        ",video_id,answer,question,video_name,question_id,question_type\r\n"
        "1,FRAMEQA5,two,how many?,tumblr_a,77,1\r\n"
        "2,FRAMEQA9,red,what color?,tumblr_a,77,2\r\n"
    )
    samples = load("benchmark=tgif_qa_sheet", f"benchmark.root={tmp_path}", f"benchmark.annotations={sheet}").samples
    assert [(s.id, s.task) for s in samples] == [("FRAMEQA5", "number"), ("FRAMEQA9", "color")]


def test_columns_can_be_named_on_the_command_line(load, tmp_path):
    sheet = tmp_path / "val.csv"
    sheet.write_text("video,question,answer,qid,type,a0,a1\n40,why?,1,6,CW,no,yes\n41,why?,0,6,CH,no,yes\n")
    words = ["benchmark=next_qa", f"benchmark.root={tmp_path}", f"benchmark.annotations={sheet}"]
    names = "benchmark.columns={video_name: video, question_id: [video, qid], question_type: type}"
    samples = load(*words, names).samples
    assert [(s.id, s.answer, s.task) for s in samples] == [("40_6", "yes", "CW"), ("41_6", "no", "CH")]
    with pytest.raises(
        BenchmarkError, match=r"val\.csv, line 1: the column 'video_name' is missing; .*benchmark\.columns\.video_name="
    ):
        load(*words)


@pytest.mark.parametrize("name", ["next_qa", "intent_qa", "star", "msrvtt_qa_val"])
def test_a_file_of_another_split_keeps_no_id(load, tmp_path, name):
    def words(file, rows=2):
        (tmp_path / file).write_text("video_name,question,answer,a0,a1\n" + "v,why?,0,yes,no\n" * rows)
        return [f"benchmark={name}", f"benchmark.root={tmp_path}", f"benchmark.annotations={tmp_path}/{file}"]

    for file in ("val.csv", "own.csv", "latest.csv"):
        assert load(*words(file)).id.endswith("/val")
    for file in ("test.csv", "NExT_QA-test.csv", "IntentQA_Test.tsv.csv", "testset.csv", "nextTest.csv"):
        with pytest.raises(BenchmarkError, match=rf"{file} is by its name of the split 'test', not 'val'"):
            load(*words(file))
        assert load(*words(file), "benchmark.split=test").id.endswith("/test")
    with pytest.raises(BenchmarkError, match="of the split 'train'"):
        load(*words("train.csv"))
    # Any name: more questions than the split has.
    with pytest.raises(BenchmarkError, match=r"own\.csv has 12279 questions, the split 'val' has"):
        load(*words("own.csv", 12_279))
    assert load(*words("own.csv", 12_279), "benchmark.split=test").split == "test"


@pytest.mark.parametrize("name", ["msvd_qa", "msrvtt_qa", "activitynet_qa", "tgif_qa"])
def test_two_files(load, tmp_path, name):
    (tmp_path / "v_b.webm").touch()
    ids = ["a_1", "a_1" if name == "tgif_qa" else "a_2"]
    asked = [{"video_name": clip, "question": "q", "question_id": one} for clip, one in zip("ab", ids, strict=True)]
    told = [{"answer": "x", "type": 2, "question_id": one} for one in ids]
    (tmp_path / "test_q.json").write_text(json.dumps(asked))
    (tmp_path / "test_a.json").write_text(json.dumps(told))
    benchmark = load(f"benchmark={name}", f"benchmark.root={tmp_path}", f"benchmark.annotations={tmp_path}")
    assert benchmark.id == f"{name}/test"
    assert [s.clip.name for s in benchmark.samples] == ["a", "v_b.webm" if name == "activitynet_qa" else "b"]


def test_recaption_asks_for_descriptions(load, tmp_path):
    (tmp_path / "a.mp4").touch()
    benchmark = load("benchmark=recaption", f"benchmark.root={tmp_path}")
    assert (benchmark.id, benchmark.samples[0].question, benchmark.max_new_tokens) == ("recaption/own", "", 256)


ROW = {"video": "a.mp4", "question": "q", "candidates": ["x", "y"], "answer": "y"}


@pytest.fixture
def mvbench(tmp_path):
    """MVBench's layout with one question a task, and one whose clips lie in video/ itself."""
    bounded = {**ROW, "start": 1.0, "end": 2.5, "question_id": "T1_1"}
    rows = {task: [ROW] for task in MVBENCH_TASKS} | {
        "action_sequence": [bounded],
        "object_interaction": [bounded],  # the same question_id in another task
        "episodic_reasoning": [{**bounded, "video": "castle_s01e01"}, {**bounded, "video": "castle_s01e01", "fps": 6}],
        "action_antonym": [{**ROW, "video": "7.gif"}, {**ROW, "video": "8.webm", "fps": None, "question_id": None}],
    }
    (tmp_path / "json").mkdir()
    for task, own in rows.items():
        (tmp_path / "json" / f"{task}.json").write_text(json.dumps(own))
    (tmp_path / "json" / "._action_count.json").write_bytes(b"\0\5")  # what some archives leave beside a file
    for name in ("star/Charades_v1_480/a.mp4", "ssv2_video/7.gif", "8.webm", "tvqa/frames_fps3_hq/castle_s01e01/1.jpg"):
        path = tmp_path / "video" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_mvbench_as_released(load, mvbench):
    benchmark = load("benchmark=mvbench", f"benchmark.root={mvbench}")
    assert sorted({s.task for s in benchmark.samples}) == MVBENCH_TASKS
    assert benchmark.id == "mvbench/test"
    by_id = {s.id: s for s in benchmark.samples}
    assert len(by_id) == 22
    sequence = by_id["action_sequence/00000"]
    assert (sequence.start, sequence.end) == (1.0, 2.5)
    assert sequence.clip == mvbench / "video" / "star" / "Charades_v1_480" / "a.mp4"
    assert sequence.clip_id == by_id["object_interaction/00000"].clip_id == "star/Charades_v1_480/a.mp4"
    assert by_id["action_antonym/00000"].clip.exists()
    assert by_id["action_antonym/00001"].clip == mvbench / "video" / "8.webm"
    assert by_id["episodic_reasoning/00000"].clip.is_dir()
    assert [by_id[f"episodic_reasoning/0000{n}"].fps for n in (0, 1)] == [3.0, 6.0]
    assert by_id["moving_count/00000"].start is None
    assert by_id["moving_count/00000"].clip == mvbench / "video" / "clevrer" / "video_validation" / "a.mp4"


def test_some_tasks_of_mvbench(load, mvbench):
    words = ("benchmark=mvbench", f"benchmark.root={mvbench}")
    assert len(load(*words, "benchmark.tasks=[action_antonym,state_change]").samples) == 3
    assert len(load(*words, "benchmark.limit=1").samples) == 20
    assert all(s.start is s.end is None for s in load(*words, "benchmark.bounds=false").samples)
    with pytest.raises(BenchmarkError, match=r"action\.json does not exist"):
        load(*words, "benchmark.tasks=[action]")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidates": "xy"}, "entry 0: the field 'candidates' must be a list of texts, got 'xy'"),
        ({"candidates": []}, "must be a list of texts"),
        ({"candidates": ["y", None, ["x"]]}, "the field 'candidates' must be text, got list"),
        ({"question": None}, "the field 'question' is empty"),
        ({"video": ""}, "the field 'video' is empty"),
        ({"video": "../b.mp4"}, "leads out of"),
        ({"start": "x"}, "the field 'start' must be a number"),
        ({"start": 3, "end": 1}, r"the field 'start' \(3 s\) comes after 'end'"),
        ({"fps": 0}, "the field 'fps' must be above 0"),
    ],
)
def test_entries_of_mvbench_that_are_refused(tmp_path, changes, words):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "task.json").write_text(json.dumps([{**ROW, **changes}]))
    with pytest.raises(BenchmarkError, match=rf"task\.json, .*{words}"):
        load_mvbench(tmp_path, "mvbench", folders={"task": "own"})


def test_answers_keep_their_white_space(tmp_path):
    (tmp_path / "json").mkdir()
    row = {**ROW, "candidates": ["x ", 2], "answer": "x "}
    (tmp_path / "json" / "task.json").write_text(json.dumps([row]))
    (sample,) = load_mvbench(tmp_path, "mvbench").samples
    assert (sample.options, sample.answer) == (("x ", "2"), "x ")


def test_the_documentation_has_no_other_choices_and_every_file_says_what_it_is():
    text = (shipped("conf").parent / "docs" / "benchmarks.md").read_text()
    configured = {path.stem: path.read_text() for path in (shipped("conf") / "benchmark").glob("*.yaml")}
    table = text.split("## Benchmarks")[1].split("\n\n")[0]
    listed = set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines()[3:])))
    assert listed <= configured.keys()
    assert all(content.startswith("# ") for content in configured.values())


def test_the_documented_sheet_can_be_read(load, tmp_path):
    text = (shipped("conf").parent / "docs" / "benchmarks.md").read_text()
    (tmp_path / "q.csv").write_text(text.split("```text\n")[1].split("```")[0])
    words = ("benchmark=qa_sheet", f"benchmark.root={tmp_path}", f"benchmark.annotations={tmp_path}/q.csv")
    first, second = load(*words, "benchmark.id=kitchen", "benchmark.split=test").samples
    assert (first.options, first.answer, first.task, first.start) == (("water", "milk", "oil"), "milk", "object", None)
    assert (second.options, second.answer, second.start, second.end) == ((), "a dog", 2.5, 9.0)
