"""Sheets of every layout: the same questions, the same samples; or one line that says what is not understood."""

import csv
import io
import json
import random

import pytest

from videopool.benchmarks import Benchmark, BenchmarkError, load_qa_sheet, repeated_answers

# Three questions: all options, fewer, and none.
TEXTS = (("red", "blue", "green", "pink"), ("one", "two", "", ""), ("", "", "", ""))
ANSWERS = ("green", "one", "a dog")


def table(headings, separator=",", fill="", mark="", answers=ANSWERS, ending="\n"):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=ending)
    writer.writerow(["video_name", "question", "answer", *headings])
    for texts, answer in zip(TEXTS, answers, strict=True):
        writer.writerow(["v", "which, of; these?", answer, *(text or fill for text in texts[: len(headings)])])
    return (mark + out.getvalue()).encode()


def load(folder, content, name="q.csv", **settings):
    (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return load_qa_sheet(folder, folder / name, **settings)


def is_right(benchmark):
    assert [s.options for s in benchmark.samples] == [TEXTS[0], TEXTS[1][:2], ()]
    assert [s.answer for s in benchmark.samples] == list(ANSWERS)
    assert {s.question for s in benchmark.samples} == {"which, of; these?"}


def columns(pattern, first):
    """Four headings."""
    return [
        pattern.format(n=n, nn=f"{n:02d}", L="ABCDE"[n - first], l="abcde"[n - first]) for n in range(first, first + 4)
    ]


UNDERSTOOD = [
    (pattern, first)
    for first in (0, 1)
    for pattern in ("mc_option_{nn}", "a{n}", "A{n}", "a_{n}", "option_{n}", "option{n}", "Option {n}", "opt_{n}",
                    "opt{n}", "options_{n}", "choice_{n}", "Choice-{n}", "choices[{n}]", "candidate{n}", "cand_{n}",
                    "answer_option_{n}")
] + [(pattern, 0) for pattern in ("{L}", "{l}", "({L})", "{L}.", "option_{l}", "option{L}", "Option {L}", "choice_{l}",
                                  "opt_{L}", "a_{l}", "answer_{l}")]  # fmt: skip


@pytest.mark.parametrize(("pattern", "first"), UNDERSTOOD)
def test_usual_columns(tmp_path, pattern, first):
    is_right(load(tmp_path, table(columns(pattern, first))))


def test_the_order_of_columns_does_not_matter(tmp_path):
    names = [f"option_{n}" for n in range(1, 13)]
    mixed = random.Random(0).sample(names, 12)
    rows = [{"video_name": "v", "question": "q", "answer": "text 11", **{n: f"text {n[7:]}" for n in mixed}}]
    (sample,) = load(tmp_path, rows, "q.json").samples
    assert sample.options == tuple(f"text {n}" for n in range(1, 13))


@pytest.mark.parametrize("separator", ",;\t|")
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize(("mark", "ending"), [("", "\n"), ("\ufeff", "\r\n")])
def test_what_parts_fields_is_seen(tmp_path, separator, suffix, mark, ending):
    is_right(load(tmp_path, table(columns("a{n}", 0), separator, mark=mark, ending=ending), f"q.{suffix}"))
    says = mark.encode() + f"sep={separator}{ending}".encode() + table(columns("a{n}", 0), separator, ending=ending)
    is_right(load(tmp_path, says, f"said.{suffix}"))


@pytest.mark.parametrize("fill", ["", " ", "N/A", "nan", "NaN", "NA", "<NA>", "#N/A", "n/a"])
def test_places_that_are_filled_up(tmp_path, fill):
    is_right(load(tmp_path, table(columns("a{n}", 0), fill=fill)))


def test_a_word_that_is_an_answer_is_an_option(tmp_path):
    rows = [b"video_name,question,answer,a0,a1", b"v,q,N/A,x,N/A", b"v,q,x,x,N/A"]
    assert [s.options for s in load(tmp_path, b"\n".join(rows)).samples] == [("x", "N/A")] * 2
    with pytest.raises(BenchmarkError, match="the option 'a1' is 'N/A', and others follow"):
        load(tmp_path, b"video_name,question,a0,a1,a2\nv,q,x,N/A,z\n")
    assert load(tmp_path, b"video_name,question,a0,a1,a2\nv,q,x,none,None\n").samples[0].options == (
        "x",
        "none",
        "None",
    )


@pytest.mark.parametrize(
    "heading", ["video_name", " Video_Name ", "VIDEO NAME", "video-name", "\u00a0video_name", "Video.Name"]
)
def test_headings_differ_in_form_only(tmp_path, heading):
    (sample,) = load(tmp_path, f'"\ufeff{heading}", QUESTION ,Answer,Question Type\nv,q,x,CW\n'.encode()).samples
    assert (sample.clip_id, sample.question, sample.answer, sample.task) == ("v", "q", "x", "CW")


LISTS = {
    "options": ["x", "y"], "candidates": ["x", "y"], "choices": ["x", "y"], "Choices": ["x", "y"],
    "answer_choices": ["x", "y"], "OPTIONS": {"A": "x", "B": "y"}, "option": {"0": "x", "1": "y"},
    "opts": {"1": "x", "2": "y"}, "possible answers": {"b": "y", "a": "x"}, "candidate_answers": '["x", "y"]',
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists(tmp_path, name):
    (sample,) = load(
        tmp_path, [{"video_name": "v", "question": "q", "answer": "y", name: LISTS[name]}], "q.json"
    ).samples
    assert (sample.options, sample.answer) == (("x", "y"), "y")


@pytest.mark.parametrize(
    "headings",
    [
        ["a0", "a1", "a3"], ["a2", "a3", "a4"], ["A", "B", "D"], ["B", "C", "D"], ["option_1", "option_3", "option_4"],
        ["option_a", "option_c"], ["a0", "a1", "option_3"], ["a0", "a1", "a_1"], ["a1", "A1"],
        ["option_1", "option_01"], ["a0", "a1", "distractor"], ["distractor_1", "distractor_2"],
        ["o1", "o2", "o3"], ["0", "1", "2"], ["a0", "a1", "ans_2"], ["a1", "a2", "C"],
        ["answer_1", "answer_2"], ["wrong_answer", "x"], ["incorrect1", "incorrect_2"], ["choice text", "x"],
        ["false_1", "false_2"], ["alternatives", "x"], ["first option", "second option"], ["a5", "x"],
    ],
)  # fmt: skip
def test_what_looks_like_options_and_is_not_understood(tmp_path, headings):
    with pytest.raises(BenchmarkError, match=r"q\.csv, line [12]: ") as error:
        load(tmp_path, table(headings))
    assert "\n" not in str(error.value)
    assert any(heading in str(error.value) for heading in headings)
    content = table(headings, answers=("", "", ""))  # either way out
    first, second, third = load(tmp_path, content, columns={"options": headings[:2]}).samples
    assert (first.options, second.options, third.options) == (("red", "blue"), ("one", "two"), ())
    assert not any(s.options for s in load(tmp_path, content, columns={"options": []}).samples)


def test_layouts_in_one_row_agree_or_are_refused(tmp_path):
    row = {"video_name": "v", "question": "q", "answer": "y", "a0": "x", "a1": "y", "choices": ["x", "y"]}
    assert load(tmp_path, [row], "q.json").samples[0].options == ("x", "y")
    with pytest.raises(BenchmarkError, match="entry 0: malformed row: 'a0' and 'choices' give different options"):
        load(tmp_path, [{**row, "choices": ["x", "y", "z"]}], "q.json")


@pytest.mark.parametrize(
    "heading", ["at", "as", "ad_id", "answer_number", "x", "y", "frame_1", "frame_2", "Unnamed: 0", "", "A", "video_id"]
)
def test_other_columns_are_no_options(tmp_path, heading):
    (sample,) = load(tmp_path, f"video_name,question,answer,{heading}\nv,q,x,7\n".encode()).samples
    assert sample.options == ()


@pytest.mark.parametrize(
    ("headings", "answers", "settings", "expected"),
    [
        # Places are counted as the columns are.
        ("a1,a2,a3", "12", {}, "xy"), ("option_1,option_2,option_3", "13", {}, "xz"), ("a0,a1,a2", "12", {}, "yz"),
        ("A,B,C", "AC", {}, "xz"), ("A,B,C", "02", {}, "xz"), ("a1,a2,a3", "12", {"answers": "index"}, "yz"),
        ("a0,a1,a2", "12", {"answers": "number"}, "xy"), ("a1,a2,a3", "bc", {}, "yz"),
        ("a1,a2,a3", "02", {}, "line 2: the answer '0' is not among .*counted from 1"),
        ("a0,a1,a2", "13", {}, "line 3: the answer '3' is not among"),
    ],
)  # fmt: skip
def test_places(tmp_path, headings, answers, settings, expected):
    content = f"video_name,question,answer,{headings}\n" + "".join(f"v,q,{one},x,y,z\n" for one in answers)
    if len(expected) == 2:
        assert "".join(s.answer for s in load(tmp_path, content.encode(), **settings).samples) == expected
    else:
        with pytest.raises(BenchmarkError, match=expected):
            load(tmp_path, content.encode(), **settings)


def test_no_layout_loses_an_option(tmp_path):
    """Whatever columns hold the options, a sheet gives all of them or is refused; single columns are no options."""
    words = ("a", "option", "opt", "choice", "o", "c", "ans", "answer", "distractor", "")
    series = [[f"{word}{gap}{n}" for n in range(5)] for word in words for gap in ("", "_", " ")]
    series += [[f"{word}_{letter}" for letter in "abcde"] for word in ("option", "choice", "a", "answer")]
    series += [list("ABCDE"), list("abcde")]
    shuffled, read, refused = random.Random(1), 0, 0
    for _ in range(600):
        own = shuffled.choice(series)
        headings = shuffled.sample(own, shuffled.randint(2, 4))
        if shuffled.random() < 0.5:
            headings = own[: len(headings)]
        if shuffled.random() < 0.3:
            headings[-1] = shuffled.choice(shuffled.choice(series))
        if len(set(headings)) < len(headings):
            continue
        try:
            (sample, *_) = load(tmp_path, table(headings, answers=("", "", ""))).samples
        except BenchmarkError:
            refused += 1
            continue
        lost = [heading for heading, text in zip(headings, TEXTS[0], strict=False) if text not in sample.options]
        if len(headings) > 2 or sum(heading in own for heading in headings) > 1:
            # A single foreign "0" or "B" that does not go on where the options end is no option.
            assert len(lost) <= 1, headings
            assert all(len(heading.strip(" _")) == 1 and heading not in own for heading in lost), headings
        read += 1
    assert min(read, refused) > 100


def test_the_field_example(shared, tmp_path):
    sheet = shared("field/options_from_a1/m1.csv")
    first, second = load_qa_sheet(tmp_path, sheet).samples
    assert first.options == second.options == ("red", "blue", "green")
    assert (first.answer, second.answer) == ("red", "blue")


def test_a_right_text_that_stands_twice_is_told(tmp_path):
    content = b"video_name,question,answer,question_id,a0,a1,a2\nv,q,x,7,x,y,x\nv,q,y,8,x,y,x\n"
    benchmark = load(tmp_path, content)
    assert benchmark.samples[0].options.count("x") == 2
    told = repeated_answers(benchmark)
    assert "in 1 of 2 samples the right answer stands among the options more than once" in told
    assert told.endswith(": 7")
    assert repeated_answers(Benchmark("b/t", "t", benchmark.samples[1:], "")) == ""
