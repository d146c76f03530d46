"""Annotation files: quoting, line breaks, encodings, and what is said of files that are wrong."""

import json

import pytest

from videopool.benchmarks import BenchmarkError
from videopool.benchmarks.columns import renamed
from videopool.benchmarks.tables import read_table


def table(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, "benchmark.annotations")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_quotes_line_breaks_and_unicode(tmp_path, ending, mark):
    lines = [
        ",video_name,question,answer",
        '0,v_a,"say ""hi"", then?","two\r\nlines"',
        "",
        "1,v_b,what\u2019s été\u2028 文?,None",
        '2,"v_c",NA,',
    ]
    rows = table(tmp_path / "q.csv", mark + ending.join(lines) + ending)
    assert [row.text("video_name") for row in rows] == ["v_a", "v_b", "v_c"]
    assert rows[0].text("question") == 'say "hi", then?'
    assert rows[0].text("answer") == "two\r\nlines"
    # Words that other readers take for missing values are words.
    assert (rows[1].text("question"), rows[1].text("answer")) == ("what\u2019s été\u2028 文?", "None")
    assert (rows[2].text("question"), rows[2].text("answer")) == ("NA", "")
    # A row is named by the line that it begins in.
    assert [row.where.rpartition("line ")[2] for row in rows] == ["2", "5", "6"]


def test_the_last_line_needs_no_end(tmp_path):
    assert [row.cells for row in table(tmp_path / "q.csv", " a ,b\n1,2")] == [{"a": "1", "b": "2"}]


def test_tabs(tmp_path):
    assert table(tmp_path / "q.tsv", "a\tb\n1,5\t2\n")[0].cells == {"a": "1,5", "b": "2"}


def test_json_and_json_lines_agree_with_a_table(tmp_path):
    entries = [{"video_name": 7, "question": "a\u2028b"}, {"video_name": 8.0, "question": None}]
    as_list = table(tmp_path / "q.json", json.dumps(entries, ensure_ascii=False))
    as_lines = table(
        tmp_path / "q.jsonl", "\n\n".join(json.dumps(e, ensure_ascii=False) for e in entries).replace("\n", "\r\n")
    )
    for rows in (as_list, as_lines):
        assert [row.text("video_name") for row in rows] == ["7", "8"]
        assert [row.text("question") for row in rows] == ["a\u2028b", ""]
    assert as_list[1].where == f"{tmp_path / 'q.json'}, entry 1"
    assert as_lines[1].where == f"{tmp_path / 'q.jsonl'}, line 3"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("q.csv", "", "is empty"),
        ("q.csv", "\ufeff \r\n", "is empty"),
        ("q.csv", "a,b\n", "no usable sample"),
        ("q.json", "[]", "no usable sample"),
        ("q.csv", "a,b\n1\n", "line 2: malformed row: 1 fields, the header has 2"),
        ("q.csv", "a,b\n1,2\n\n1,2,3\n", "line 4: malformed row: 3 fields"),
        ("q.csv", 'a,b\n1,"2\n3,4\n', "line 2: malformed row: unexpected end of data"),
        ("q.csv", 'a,b\n1,"2"3\n', "line 2: malformed row"),
        ("q.csv", "a,b,a\n1,2,3\n", "line 1: the column 'a' stands twice"),
        ("q.csv", b"a,b\n1,2\n\xe9,2\n", "line 3: byte 0xe9 is not UTF-8"),
        ("q.json", "[{]", "line 1: not JSON: .* at column 3"),
        ("q.json", '[{"a": 1},\n {"a": }]', "line 2: not JSON"),
        ("q.json", '{"data": [], "info": 1}', "a list of objects is expected, got dict with 'data', 'info'"),
        ("q.json", "3", "a list of objects is expected, got int"),
        ("q.json", '[{"a": 1}, [2]]', "entry 1: an object is expected, got list"),
        ("q.json", "[" * 100000, "not JSON that can be read"),
        ("q.jsonl", '{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ("q.jsonl", "[1]\n", "line 1: an object is expected"),
        ("q.parquet", "PAR1", "no parquet that can be read|needs pyarrow"),
        ("q.xlsx", "PK", r"\.csv \.tsv \.json \.jsonl \.ndjson \.parquet can be read"),
    ],
)
def test_files_that_are_wrong(tmp_path, name, content, words):
    with pytest.raises(BenchmarkError, match=words) as error:
        table(tmp_path / name, content)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BenchmarkError, match=r"gone\.csv does not exist \(benchmark\.annotations\)"):
        read_table(tmp_path / "gone.csv", "benchmark.annotations")
    with pytest.raises(BenchmarkError, match="is a folder: give a file"):
        read_table(tmp_path, "benchmark.annotations")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"start": "soon"}, "the field 'start' must be a number of at least 0, got 'soon'"),
        ({"start": -1}, "at least 0, got '-1'"),
        ({"start": "inf"}, "at least 0, got 'inf'"),
        ({"start": True}, "the field 'start' must be text, got bool"),
        ({"start": [1]}, "the field 'start' must be text, got list"),
    ],
)
def test_values_that_are_wrong(tmp_path, cells, words):
    (row,) = table(tmp_path / "q.json", json.dumps([cells]))
    with pytest.raises(BenchmarkError, match=words):
        row.number("start")


def test_numbers(tmp_path):
    (row,) = table(tmp_path / "q.json", '[{"a": 1, "b": "2.5", "c": null, "d": NaN, "e": "nan", "f": ""}]')
    assert [row.number(name) for name in "abcdefg"] == [1.0, 2.5, None, None, None, None, None]


def test_columns_by_other_names(tmp_path):
    rows = table(tmp_path / "q.csv", "video,qid,type,x,y\nv,3,CW,no,yes\n")
    names = {
        "video_name": "video", "question_id": ["video", "qid"], "question_type": [], "options": ["x", "y"], "fps": None,
    }  # fmt: skip
    (row,) = renamed(rows, names, ["video_name"])
    assert row.text("video_name") == "v"
    assert row.text("question_id") == "v_3"
    assert row.text("question_type") == ""
    assert row.cells["options"] == ["no", "yes"]
    with pytest.raises(
        BenchmarkError, match="the column 'clip' is missing; there are 'video', 'qid', 'type', 'x', 'y'"
    ):
        renamed(rows, {"video_name": "clip"}, [])
    with pytest.raises(BenchmarkError, match="the column 'question' is missing"):
        renamed(rows, names, ["video_name", "question"])
