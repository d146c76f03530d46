"""Video-ChatGPT's benchmark: three files, pairs of questions, both of its formats."""

import csv
import json
from collections import Counter

import pytest

from videopool.benchmarks import BenchmarkError, load_vcgbench
from videopool.benchmarks.vcgbench import AXES

GENERIC = [{"Q": f"what is {n}?", "A": f"It is {n}, “really”.", "video_name": f"v_{n % 2}"} for n in range(3)]
TEMPORAL = [{"Q": "what comes first?", "A": "The bow.", "video_name": "v_0"}]
CONSISTENCY = [
    {"Q1": f"who {n}?", "Q2": f"can you tell who {n}?", "A": f"she, {n}", "video_name": f"v_{n}"} for n in range(2)
]


def write(folder, generic=GENERIC, temporal=TEMPORAL, consistency=CONSISTENCY):
    for name, rows in (("generic", generic), ("temporal", temporal), ("consistency", consistency)):
        (folder / f"{name}_qa.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def write_sheets(folder, second=None):
    """The same questions as sheets, with the ids and CRLF that such sheets have."""
    parts = {
        "Generic_QA": [(r["video_name"], r["Q"], f"{r['video_name']}_{n}", r["A"]) for n, r in enumerate(GENERIC)],
        "Temporal_QA": [(r["video_name"], r["Q"], f"{r['video_name']}_0", r["A"]) for r in TEMPORAL],
        "Consistency_QA1": [(r["video_name"], r["Q1"], f"{r['video_name']}_0", r["A"]) for r in CONSISTENCY],
        "Consistency_QA2": [(r["video_name"], r["Q2"], f"{r['video_name']}_0", r["A"]) for r in CONSISTENCY],
    }  # fmt: skip
    if second is not None:
        parts["Consistency_QA2"] = second(parts["Consistency_QA2"])
    for name, rows in parts.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow(["", "video_name", "question", "question_id", "answer", "question_type"])
            writer.writerows([number, *row, 0] for number, row in enumerate(rows))


def seen(benchmark):
    return [(s.id, s.task, s.pair, s.question, s.answer, s.clip_id) for s in benchmark.samples]


def test_samples_carry_what_a_judge_needs(tmp_path):
    write(tmp_path)
    (tmp_path / "v_1.mkv").touch()
    benchmark = load_vcgbench(tmp_path, tmp_path)
    assert Counter(s.task for s in benchmark.samples) == {"generic": 3, "temporal": 1, "consistency": 4}
    assert set(AXES.values()) == {s.task for s in benchmark.samples}
    assert len(AXES) == 5
    pairs = Counter(s.pair for s in benchmark.samples if s.pair)
    assert pairs == {"consistency/00000": 2, "consistency/00001": 2}
    first, second = (s for s in benchmark.samples if s.pair == "consistency/00001")
    assert (first.question, second.question) == ("who 1?", "can you tell who 1?")
    assert first.answer == second.answer == "she, 1"
    assert first.clip == second.clip == tmp_path / "v_1.mkv"
    assert benchmark.samples[2].answer == "It is 2, “really”."
    assert (benchmark.id, benchmark.scoring) == ("vcgbench/test", "generate")


def test_sheets_are_the_same_questions(tmp_path):
    (tmp_path / "json").mkdir()
    (tmp_path / "sheets").mkdir()
    write(tmp_path / "json")
    write_sheets(tmp_path / "sheets", second=lambda rows: rows[::-1])
    assert seen(load_vcgbench(tmp_path, tmp_path / "json")) == seen(load_vcgbench(tmp_path, tmp_path / "sheets"))


def test_parts_and_limit(tmp_path):
    write(tmp_path)
    assert {s.task for s in load_vcgbench(tmp_path, tmp_path, parts=["temporal"]).samples} == {"temporal"}
    assert Counter(s.task for s in load_vcgbench(tmp_path, tmp_path, limit=1).samples) == {
        "generic": 1, "temporal": 1, "consistency": 2,
    }  # fmt: skip
    (tmp_path / "generic_qa.json").unlink()
    assert len(load_vcgbench(tmp_path, tmp_path, parts=["consistency"]).samples) == 4
    with pytest.raises(BenchmarkError, match=r"there is neither generic_qa\.json nor Generic_QA\.csv"):
        load_vcgbench(tmp_path, tmp_path)
    with pytest.raises(BenchmarkError, match=r"benchmark\.parts='all': choose one of generic, temporal, consistency"):
        load_vcgbench(tmp_path, tmp_path, parts=["all"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"generic": [{"Q": "q", "A": "a"}]}, r"generic_qa\.json, entry 0: the column 'video_name' is missing"),
        ({"generic": [{**GENERIC[0], "A": ""}]}, "entry 0: malformed row: there is no answer"),
        ({"consistency": [{**CONSISTENCY[0], "Q2": None}]}, "entry 0: malformed row: the field 'Q2' is empty"),
        ({"consistency": GENERIC}, "the column 'Q1' is missing; there are 'Q', 'A', 'video_name'"),
        ({"temporal": {"Q": 1}}, r"temporal_qa\.json: a list of objects is expected"),
    ],
)
def test_bad_files(tmp_path, rows, words):
    write(tmp_path, **rows)
    with pytest.raises(BenchmarkError, match=words):
        load_vcgbench(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (lambda rows: rows[:1], "1 questions stand in one of them alone: v_1_0"),
        (
            lambda rows: [rows[0], ("v_9", *rows[1][1:])],
            r"Consistency_QA2\.csv, line 3: the field 'video_name' differs",
        ),
        (
            lambda rows: [rows[0], (rows[1][0], "", *rows[1][2:])],
            "line 3: malformed row: the field 'question' is empty",
        ),
    ],
)
def test_halves_that_do_not_fit(tmp_path, second, words):
    write_sheets(tmp_path, second)
    with pytest.raises(BenchmarkError, match=words):
        load_vcgbench(tmp_path, tmp_path)
