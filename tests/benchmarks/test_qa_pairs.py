"""Questions and answers in two files."""

import json
import random

import pytest

from videopool.benchmarks import BenchmarkError, load_qa_pairs

ASKED = [{"video_name": f"c{n // 2}", "question": f"what {n}?", "question_id": f"c{n // 2}_{n % 2}"} for n in range(6)]
TOLD = [{"answer": f"answer {n}", "type": n % 3, "question_id": f"c{n // 2}_{n % 2}"} for n in range(6)]


def load(folder, asked=ASKED, told=TOLD, **settings):
    (folder / "test_q.json").write_text(json.dumps(asked))
    (folder / "test_a.json").write_text(json.dumps(told))
    return load_qa_pairs(folder, folder, "made_qa", **settings)


def test_joined_by_id_whatever_the_order(tmp_path):
    (tmp_path / "v_c0.mkv").touch()
    (tmp_path / "c1.avi").touch()
    told = TOLD.copy()
    random.Random(0).shuffle(told)
    benchmark = load(tmp_path, told=told, prefixes=["v_"], task_names={0: "motion"})
    assert [(s.question, s.answer) for s in benchmark.samples] == [(f"what {n}?", f"answer {n}") for n in range(6)]
    assert [s.id for s in benchmark.samples] == [row["question_id"] for row in ASKED]
    assert [s.task for s in benchmark.samples] == ["motion", "1", "2"] * 2
    assert [s.clip.name for s in benchmark.samples] == ["v_c0.mkv"] * 2 + ["c1.avi"] * 2 + ["c2"] * 2
    assert (benchmark.id, benchmark.split, benchmark.scoring) == ("made_qa/test", "test", "generate")
    assert load(tmp_path, limit=3).samples[-1].answer == "answer 2"


def test_ids_may_be_numbers(tmp_path):
    asked = [{**row, "question_id": n} for n, row in enumerate(ASKED)]
    told = [{**row, "question_id": str(n)} for n, row in enumerate(TOLD)]
    assert load(tmp_path, asked, told).samples[5].answer == "answer 5"


def test_the_hash_covers_both_files(tmp_path):
    first = load(tmp_path).annotation_hash
    assert load(tmp_path, told=[{**TOLD[0], "answer": "else"}, *TOLD[1:]]).annotation_hash != first
    assert load(tmp_path, asked=[{**ASKED[0], "question": "else"}, *ASKED[1:]]).annotation_hash != first


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(BenchmarkError) as error:
        load(tmp_path, ASKED[1:], TOLD[:-2])
    assert str(error.value) == (
        f"{tmp_path}: 2 of 5 questions have no answer in test_a.json: 'c2_0', 'c2_1'; "
        "1 answers belong to no question in test_q.json: 'c0_0'"
    )
    with pytest.raises(BenchmarkError, match=r"6 questions have no answer .*'c2_0' and 1 more"):
        load(tmp_path, told=[{**TOLD[0], "question_id": "else"}])


def test_repeated_ids(tmp_path):
    asked = [*ASKED, {**ASKED[0], "question": "again?"}]
    told = [*TOLD, {**TOLD[0], "answer": "again"}]
    with pytest.raises(
        BenchmarkError, match=r"test_q\.json, entry 6: the question_id 'c0_0' stands twice; first in .*entry 0"
    ):
        load(tmp_path, asked, told)
    with pytest.raises(BenchmarkError, match=r"test_a\.json, entry 6: the question_id 'c0_0' stands twice"):
        load(tmp_path, ASKED, told)
    samples = load(tmp_path, asked, told, repeated_ids="number").samples
    assert [(s.id, s.question, s.answer) for s in samples if s.id.startswith("c0_0")] == [
        ("c0_0", "what 0?", "answer 0"),
        ("c0_0#2", "again?", "again"),
    ]
    with pytest.raises(BenchmarkError, match="'c0_0#2'"):
        load(tmp_path, asked, TOLD, repeated_ids="number")


@pytest.mark.parametrize(
    ("asked", "told", "words"),
    [
        ([{"video_name": "v", "question": "q"}], TOLD, r"test_q\.json, entry 0: the column 'question_id' is missing"),
        (ASKED, [{"question_id": "c0_0"}], r"test_a\.json, entry 0: the column 'answer' is missing"),
        ([{**ASKED[0], "question_id": ""}], TOLD, "entry 0: malformed row: the field 'question_id' is empty"),
        ([{**ASKED[0], "question": ["q"]}, *ASKED[1:]], TOLD, "entry 0: the field 'question' must be text, got list"),
        ([{**ASKED[0], "video_name": "../v"}, *ASKED[1:]], TOLD, "entry 0: '../v' leads out of"),
        ({"questions": ASKED}, TOLD, r"test_q\.json: a list of objects is expected"),
        ([], TOLD, "no usable sample"),
    ],
)
def test_bad_files(tmp_path, asked, told, words):
    with pytest.raises(BenchmarkError, match=words):
        load(tmp_path, asked, told)


def test_missing_files(tmp_path):
    (tmp_path / "test_q.json").write_text(json.dumps(ASKED))
    with pytest.raises(BenchmarkError, match=r"test_a\.json does not exist"):
        load_qa_pairs(tmp_path, tmp_path, "made_qa")
