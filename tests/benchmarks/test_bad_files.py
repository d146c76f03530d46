"""What each loader says of a wrong file, in one line; and rows of published files that cannot be used."""

import json
import re
import sys

import pytest
from omegaconf import OmegaConf

from composed import composed
from videopool.benchmarks import BenchmarkError, load_qa_sheet, load_released
from videopool.config.build import build

# Files by name, with their content; a folder has files of its own.
FAULTS = {
    "none.json": None,
    "data.zip": b"PK",
    "empty.json": b"",
    "cut.json": b'[{"video_name": "a", "question": "what is th',
    "cut.csv": b'video_name,question,answer\na,q,x\nb,"what is th',
    "pointer.csv": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "pointer.parquet": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "page.json": b"<!DOCTYPE html>",
    "columns.csv": b"a,b\n1,2\n",
    "columns.json": b'[{"a": 1}]',
    "object.json": b'{"error": "no"}',
    "number.json": b"3",
    "bytes.csv": b"a,\xff\n",
    "damaged.parquet": b"PAR1",
    "folder": {},
    "other": {"one.csv": b"a,b\n1,2\n"},
}
# Words of the line about a file, for loaders of one file.
WORDS = {
    "none.json": "does not exist", "data.zip": r"\.csv \.tsv .* can be read", "empty.json": "is empty",
    "cut.json": "line 1: not JSON.*fetch it again", "cut.csv": "line 3: malformed row",
    "pointer.csv": "git lfs pull", "pointer.parquet": "git lfs pull", "page.json": "line 1: not JSON",
    "columns.csv": r"line 1: the column '.*' is missing; there are .*'a', 'b'.*benchmark\.columns",
    "bytes.csv": "line 1: byte 0xff is not UTF-8", "damaged.parquet": "no parquet that can be read",
}  # fmt: skip
OF_FOLDERS = ("qa_pairs", "vcgbench")
# Every loader, and every way in which a released file is nested or named.
NAMES = (*OF_FOLDERS, "qa_sheet", "clips", "released", "lvbench", "tempcompass", "mlvu", "tomato", "msvd_qa_official",
         "video_mme", "longvideobench_subtitles")  # fmt: skip


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Wrong files by name, and a folder without clips."""
    root = tmp_path_factory.mktemp("faulty")
    (root / "clips").mkdir()
    for name, content in FAULTS.items():
        if isinstance(content, dict):
            (root / name).mkdir()
        for file, own in content.items() if isinstance(content, dict) else [("", content)]:
            if own is not None:
                (root / name / file).write_bytes(own)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_file_is_told_in_one_line(name, faulty):
    pytest.importorskip("pyarrow", reason="the extra parquet")
    config = composed(f"benchmark={name}", f"benchmark.root={faulty / 'clips'}")
    key = "questions" if name == "clips" else "annotations"
    if config.benchmark.get("subtitles"):
        config.benchmark.subtitles.root = str(faulty)
    for file in FAULTS:
        OmegaConf.update(config, f"benchmark.{key}", str(faulty / file))
        with pytest.raises(BenchmarkError) as error:
            build(config, "benchmark")
        line = str(error.value)
        assert "\n" not in line
        assert str(faulty / file) in line
        if name in OF_FOLDERS:
            assert f"benchmark.annotations={faulty / file}" in line
        elif words := WORDS.get(file):
            assert re.search(words, line), line
        elif isinstance(FAULTS[file], dict):
            assert f"benchmark.{key}={faulty / file}" in line or "one.csv" in line


def test_parquet_without_pyarrow(faulty, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for load in (load_qa_sheet, load_released):
        with pytest.raises(BenchmarkError, match=r"parquet needs pyarrow, the extra `parquet`: pip install pyarrow"):
            load(faulty / "clips", faulty / "damaged.parquet", id="x", split="own")


SHEET = ["video_name,question,question_id,answer,a0,a1", *(f"v{n},what?,{n},x,x,y" for n in range(300))]
ENTRIES = [{"video_name": f"v{n}", "question": "what?", "question_id": n, "answer": "x", "options": ["x", "y"]}
           for n in range(300)]  # fmt: skip


def changed(rows, place, row):
    return [*rows[:place], row, *rows[place + 1 :]]


ROWS = {
    "fewer fields": ("q.csv", changed(SHEET, 7, "v,what"), "line 8: malformed row: 2 fields, the header has 6"),
    "a quote inside": ("q.csv", changed(SHEET, 7, '"stop" what?,what,6,x,x,y'), "line 8: malformed row: "),
    "a type": ("q.json", changed(ENTRIES, 7, {**ENTRIES[7], "answer": True}), "entry 7: the field 'answer' must"),
    "an id's type": ("q.json", changed(ENTRIES, 7, {**ENTRIES[7], "question_id": [1]}), "entry 7: .* must be text"),
    "an id": ("q.json", changed(ENTRIES, 7, ENTRIES[6]), "entry 7: the question_id '6' stands twice; .* entry 6"),
    "no question": ("q.json", changed(ENTRIES, 7, {"video_name": "v"}), "entry 7: the column 'question' is missing"),
    "an entry": ("q.json", changed(ENTRIES, 7, "v7"), "entry 7: an object is expected, got str"),
    "a line": ("q.jsonl", changed(ENTRIES, 7, "v7"), "line 8: an object is expected, got str"),
    "broken line": ("q.jsonl", changed(ENTRIES, 7, None), "line 8: not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("load", [load_qa_sheet, load_released])
@pytest.mark.parametrize("fault", ROWS)
def test_one_row_that_cannot_be_used(load, fault, tmp_path, capsys):
    name, rows, words = ROWS[fault]
    text = json.dumps(rows)
    if not name.endswith(".json"):
        text = "\n".join(row if name[-2:] == "sv" else json.dumps(row) if row else "{" for row in rows)
    (tmp_path / name).write_text(text)
    settings = {"root": tmp_path, "annotations": tmp_path / name, "id": "x", "split": "own"}
    with pytest.raises(BenchmarkError, match=words):
        load(**settings)
    samples = load(**settings, bad_rows="leave_out").samples
    good = [str(n) for n in range(300) if n != (6 if name[-2:] == "sv" else 7)]
    assert [sample.id for sample in samples] == good
    told = capsys.readouterr().err
    assert "x/own: 1 of 300 rows cannot be used and are left out; the first: " in told
    assert str(tmp_path / name) in told


def test_quotes_between_tabs_may_be_text(tmp_path):
    rows = ["video_name\tquestion\tanswer", 'v\t"stop" said who ?\tman', 'v\t"a ""b"""\t"x"', "v\twhat?\ty"]
    (tmp_path / "q.tsv").write_text("\n".join(rows))
    samples = load_qa_sheet(tmp_path, tmp_path / "q.tsv").samples
    assert [sample.question for sample in samples] == ['"stop" said who ?', 'a "b"', "what?"]
    assert [sample.answer for sample in samples] == ["man", "x", "y"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.csv", "\n".join(SHEET) + "\nv300,wh"),
        ("q.csv", "\n".join(SHEET) + '\nv300,"wh'),
        ("q.csv", "\n".join(changed(SHEET, 7, 'v,"what?,6,x,x,y'))),
        ("q.jsonl", "\n".join(map(json.dumps, ENTRIES)) + '\n{"video_name": "v3'),
        ("q.json", json.dumps(ENTRIES)[:-40]),
    ],
)
def test_a_file_that_was_cut_off_is_not_read_in_part(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    for load in (load_qa_sheet, load_released):
        with pytest.raises(BenchmarkError, match=r"q\.(csv|jsonl?), line \d+: "):
            load(tmp_path, tmp_path / name, id="x", split="own", bad_rows="leave_out")


def test_questions_in_rows_that_are_nested_otherwise(tmp_path, capsys):
    rows = [{"key": f"v{n}", "qa": [{"question": "what?", "answer": ""}]} for n in range(200)]
    rows[3] = {"key": "v3", "qa": "none"}
    (tmp_path / "q.json").write_text(json.dumps(rows))
    settings = {"columns": {"video_name": "key"}, "inner": "qa", "bad_rows": "leave_out"}
    assert len(load_released(tmp_path, tmp_path / "q.json", "x", "own", **settings).samples) == 199
    assert "entry 3: the field 'qa' must be a list of objects" in capsys.readouterr().err


def test_a_file_without_a_usable_row_says_why(tmp_path):
    (tmp_path / "q.json").write_text('["a", "b"]')
    for load in (load_qa_sheet, load_released):
        with pytest.raises(BenchmarkError, match="an object is expected, got str"):
            load(tmp_path, tmp_path / "q.json", id="x", split="own", bad_rows="leave_out")
