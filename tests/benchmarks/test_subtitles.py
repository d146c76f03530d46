"""Subtitles in front of questions: SubRip and LongVideoBench's JSON, cut to the clip and thinned."""

import json

import pytest
from test_released import LONG
from test_video_mme import ROW

from composed import composed
from videopool.benchmarks import BenchmarkError
from videopool.benchmarks.subtitles import read_subtitles
from videopool.config.build import build

SRT = """\ufeff1
00:00:01,000 --> 00:00:02,500
<font color="white" size=".72c">Hello
there</font>

2
00:00:03,000 --> 00:00:04,000
{\\an8}

3
01:00:00,250 --> 01:00:02,000
the end
""".replace("\n", "\r\n")


def load(folder, name, annotations, *words):
    chosen = (f"benchmark={name}", f"benchmark.root={folder}", f"benchmark.annotations={annotations}")
    return build(composed(*chosen, f"benchmark.subtitles.root={folder}", *words), "benchmark")


def test_subrip(tmp_path):
    (tmp_path / "a.srt").write_text(SRT)
    assert read_subtitles(tmp_path / "a.srt") == [(1.0, 2.5, "Hello there"), (3600.25, 3602.0, "the end")]


def test_video_mme_with_subtitles_is_another_benchmark(tmp_path):
    (tmp_path / "Ab-1.srt").write_text(SRT)
    rows = [ROW, {**ROW, "question_id": "001-2", "videoID": "silent"}]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    benchmark = load(tmp_path, "video_mme_subtitles", tmp_path / "test.json")
    assert benchmark.id == "video_mme_subtitles/test"
    first, second = benchmark.samples
    assert first.question == "This video's subtitles are listed below:\nHello there\nthe end\nHow many?"
    assert second.question == "This video's subtitles are listed below:\nNo subtitles available.\nHow many?"
    assert first.options == ("One.", "B. is it.", "C'est trois.", "Four:\nall")
    words = ("benchmark.subtitles.most=1", "benchmark.subtitles.text='{question} [{subtitles}]'")
    assert load(tmp_path, "video_mme_subtitles", tmp_path / "test.json", *words).samples[0].question == (
        "How many? [Hello there]"
    )


@pytest.mark.parametrize("form", ["lines", "texts"])
def test_longvideobench_cuts_the_videos_subtitles_to_the_clip(tmp_path, form):
    """The clip is seconds 100 to 110 of its video."""
    said = [("00:01:39.000", "00:01:40.000", "before"), ("00:01:39.500", "00:01:41.000", "at the start"),
            ("00:01:49.900", "00:01:59.000", "at the end"), ("00:01:50.000", "00:01:51.000", "after")]  # fmt: skip
    lines = [{"start": start, "end": end, "line": line} for start, end, line in said]
    stamps = [(99.0, 100.0), (99.5, 101.0), (109.9, None), (110, 111)]
    texts = [{"timestamp": list(times), "text": line} for times, (_, _, line) in zip(stamps, said, strict=True)]
    (tmp_path / "86CxyhFV9MI_en.json").write_text(json.dumps(lines if form == "lines" else texts))
    (tmp_path / "lvb_val.json").write_text(json.dumps([{**LONG, "candidates": ["red", "blue"]}]))
    benchmark = load(tmp_path, "longvideobench_subtitles", tmp_path / "lvb_val.json")
    assert benchmark.id == "longvideobench_subtitles/val"
    (sample,) = benchmark.samples
    assert sample.question.split("\n")[1:] == ["at the start", "at the end", "What colour?"]
    plain = composed(
        "benchmark=longvideobench", f"benchmark.root={tmp_path}", f"benchmark.annotations={tmp_path}/lvb_val.json"
    )
    assert build(plain, "benchmark").id == "longvideobench/val"


def test_lines_are_thinned_evenly(tmp_path):
    blocks = [f"{n}\n00:00:0{n},0 --> 00:00:0{n},5\nline {n}\n" for n in range(9)]
    (tmp_path / "Ab-1.srt").write_text("\n".join(blocks))
    (tmp_path / "test.json").write_text(json.dumps([ROW]))
    (sample,) = load(tmp_path, "video_mme_subtitles", tmp_path / "test.json", "benchmark.subtitles.most=3").samples
    assert sample.question.split("\n")[1:-1] == ["line 0", "line 4", "line 8"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.srt", "1\nhello\n", r"a\.srt: no times in the subtitle '1"),
        ("a.srt", "1\n1:x --> 2\nhello\n", "no times in the subtitle"),
        ("a.srt", "1\n1:.. --> 2\nhello\n", r"'1:\.\.' is no time"),
        ("a.json", "{}", r"a\.json: a list of objects is expected"),
        ("a.json", '[{"start": "1"}]', "entry 0: no times and text"),
        ("a.json", '[{"timestamp": [1], "text": "x"}]', "entry 0: no times and text"),
        ("a.json", '[{"timestamp": ["a", 2], "text": "x"}]', "'a' is no time"),
    ],
)
def test_files_that_are_wrong(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(BenchmarkError, match=words):
        read_subtitles(tmp_path / name)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("benchmark.subtitles.root=nowhere", r"benchmark\.subtitles\.root=nowhere: no such folder"),
        ("benchmark.subtitles.most=0", r"benchmark\.subtitles\.most=0: give a number of lines"),
        ("benchmark.subtitles.text='{question}'", r"text must hold \{subtitles\} exactly once"),
        ("benchmark.subtitles.name='../{videoID}.srt'", "leads out of"),
        ("benchmark.subtitles.name='{video}.srt'", "the field 'video' is missing"),
    ],
)
def test_settings_that_are_wrong(tmp_path, word, words):
    (tmp_path / "test.json").write_text(json.dumps([ROW]))
    with pytest.raises(BenchmarkError, match=words):
        load(tmp_path, "video_mme_subtitles", tmp_path / "test.json", word)
