"""Files as large as the released ones and in their forms: every question is kept, or named; so is every clip."""

import csv
import json

import pytest

from composed import composed
from videopool.benchmarks import contradictions, repeated_answers
from videopool.config.build import build

# Of NExT-QA's official files.
OFFICIAL = [
    "video",
    "frame_count",
    "width",
    "height",
    "question",
    "answer",
    "qid",
    "type",
    *(f"a{n}" for n in range(5)),
]
OPTIONS = ("by a rope, on the left", 'he said "stop"', "two", "nan it is", "parent offspring")


def table(path, header, rows, separator=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(header)
        writer.writerows(rows)


def options_of(number):
    """Five options; of some rows, two are equal."""
    first = number % 5
    options = list(OPTIONS[first:] + OPTIONS[:first])
    return [*options[:4], options[0]] if number % 97 == 0 else options


def next_qa(path, count, clips, own=True):
    header = OFFICIAL
    if not own:  # IG-VLM's sheet: an index without a name, ids run together, places beside texts
        header = ["", "video_name", "frame_count", "width", "height", "question", "answer_number", "question_id",
                  "question_type", *(f"a{n}" for n in range(5)), "answer"]  # fmt: skip
    rows = []
    for n in range(count):
        clip, options, place = 2400000000 + 7919 * (n % clips), options_of(n), n % 5
        row = [clip, 300 + n % 9, 640, 480, f"why did the man, near the end, do {n}"]
        kind = ("CH", "CW", "TC", "TN", "TP", "DC", "DL", "DO")[n % 8]
        own_row = [*row, place, n // clips, kind, *options]
        rows.append(own_row if own else [n, *row, place, f"{clip}{n // clips}", kind, *options, options[place]])
    table(path, header, rows)


def intent_qa(path, count, clips):
    header = ["video_id", "frame_count", "width", "height", "question", "answer", "qid", "type",
              *(f"a{n}" for n in range(5)), "action", "lemma", "lemma_id"]  # fmt: skip
    rows = [
        [2400000000 + n % clips, 400, 640, 360, f"why {n}", n % 5, n // clips, ("CW", "CH", "TN", "TP")[n % 4],
         *options_of(n), "want", "want", 33]
        for n in range(count)
    ]  # fmt: skip
    table(path, header, rows)


def star(path, count, clips):
    header = ["", "video_name", "question", "answer_number", "question_id", "question_type",
              *(f"a{n}" for n in range(4)), "answer"]  # fmt: skip
    counts = {"Interaction": 4, "Sequence": 6, "Prediction": 4, "Feasibility": 6}
    kinds = [f"{name}_T{n}" for name, most in counts.items() for n in range(1, most + 1)]
    rows = []
    for n in range(count):
        options = [f"The {word}." for word in ("closet/cabinet", "blanket", "clothes", "table")]
        kind = kinds[n % len(kinds)]
        rows.append(
            [
                n,
                f"A{n % clips:04d}_{n % 7}.5_{n % 7 + 8}.0",
                f"Which object {n}?",
                n % 4,
                f"{kind}_{n}",
                kind,
                *options,
                options[n % 4],
            ]
        )
    table(path, header, rows)


def pairs(path, count, clips, name):
    """IG-VLM's sheets of short answers: the same question again, with another answer, on one clip."""
    header = ["", "video_id", "answer", "question", "video_name", "question_id", "question_type"]
    words = ("someone", "two", "none", "null", "N/A sign", "-", "3", "t-shirt")
    rows = [
        [n, 1201 + n % clips, words[n % 8], f"what is a man doing {n % 5}?", name(n % clips), n, n % 5]
        for n in range(count)
    ]
    table(path, header, rows)


def tgif_sheet(path, count, clips):
    header = ["", "video_id", "answer", "question", "video_name", "question_id", "question_type"]
    rows = [
        [n, f"FRAMEQA{n}", "two", "how many?", f"tumblr_{n % clips}_r1_500", n % clips, n % 4] for n in range(count)
    ]
    table(path, header, rows)


def tgif_official(path, count, clips):
    header = ["gif_name", "question", "answer", "type", "vid_id", "key", "description"]
    rows = [
        [
            f"tumblr_{n % clips}_r1_500",
            'what is it , "now" ?',
            "cat",
            n % 4,
            f"FRAMEQA{n}",
            n % clips,
            '"stop" , says a man .',
        ]
        for n in range(count)
    ]
    table(path, header, rows, "\t")


def tempcompass(path, count, clips):
    content = {}
    for n in range(count):
        options = ["moving towards the camera", "A-shaped path", "from left to right", "still"][: 2 + n % 3]
        text = f"Which way, {n}?\n" + "\n".join(
            f"{letter}. {one}" for letter, one in zip("ABCD", options, strict=False)
        )
        name = f"{1034419625 + n % clips // 2}" + ("_reverse" if n % clips % 2 else "")
        kind = ("action", "direction", "speed", "event", "attribute_change")[n % 5]
        answer = f"{'ABCD'[n % len(options)]}. {options[n % len(options)]}"
        content.setdefault(name, {}).setdefault(kind, []).append({"question": text, "answer": answer})
    path.write_text(json.dumps(content))


def mlvu(path, count, clips):
    """Seven files; one question's answer is not among its candidates."""
    path.mkdir()
    parts = {"1_plotQA": "plotQA", "2_needle": "findNeedle", "3_ego": "ego", "4_count": "count", "5_order": "order",
             "6_anomaly_reco": "anomaly_reco", "7_topic_reasoning": "topic_reasoning"}  # fmt: skip
    for place, (name, kind) in enumerate(parts.items()):
        numbers = range(place, count, len(parts))
        rows = [
            {"video": f"{kind}_{n % clips}.mp4", "duration": 400.5, "question": f"How many, {n}?",
             "candidates": [str(n % 7), "17", "30", "42"], "answer": "30.5" if n == 3 else str(n % 7),
             "question_type": kind}
            for n in numbers
        ]  # fmt: skip
        (path / f"{name}.json").write_text(json.dumps(rows))


FILES = {
    "msvd_qa_val": ("MSVD_QA.csv", 6415, 245, lambda p, c, k: pairs(p, c, k, lambda n: f"-bQJQGoJF7_k_{n}_{n + 9}")),
    "msrvtt_qa_val": ("MSRVTT_QA.csv", 12278, 497, lambda p, c, k: pairs(p, c, k, lambda n: f"video{6513 + n}")),
    "tgif_qa_sheet": ("TGIF_FrameQA.csv", 13691, 7132, tgif_sheet),
    "tgif_qa_official": ("Test_frameqa_question.csv", 13691, 7132, tgif_official),
    "next_qa": ("NExT_QA.csv", 4996, 570, lambda p, c, k: next_qa(p, c, k, own=False)),
    "next_qa_test": ("test.csv", 8564, 1000, next_qa),
    "intent_qa_test": ("test.csv", 2134, 567, intent_qa),
    "star": ("STAR.csv", 7098, 914, star),
    "mlvu": ("json", 2175, 1000, mlvu),
    "tempcompass": ("multi-choice.json", 1580, 410, tempcompass),
}


@pytest.mark.parametrize("name", FILES)
def test_every_question_of_a_whole_file(name, tmp_path, capsys):
    file, count, clips, write = FILES[name]
    write(tmp_path / file, count, clips)
    benchmark = build(
        composed(f"benchmark={name}", f"benchmark.root={tmp_path}", f"benchmark.annotations={tmp_path / file}"),
        "benchmark",
    )
    told = capsys.readouterr().err
    samples = benchmark.samples
    bad = int(name == "mlvu")
    assert len(samples) == len({sample.id for sample in samples}) == count - bad
    assert ("1 of 2175 rows cannot be used and are left out" in told) is bool(bad)
    if name not in ("star", "mlvu"):  # whose clips depend on the kind of question, too
        assert len({sample.clip_id for sample in samples}) == clips
    assert all(sample.question and sample.answer for sample in samples)
    assert all(sample.answer in sample.options for sample in samples if sample.options)
    assert len(benchmark.samples_hash) == 64
    if name.startswith("next_qa"):
        assert "more than once" in repeated_answers(benchmark)
        assert {len(sample.options) for sample in samples} == {5}
    if name.startswith("ms"):
        assert "exact match cannot pass" in contradictions(benchmark)


def test_one_unusable_row_of_a_released_sheet_is_named_and_left_out(tmp_path, capsys):
    rows = [[f"{n % 9}", 1, 1, 1, "why?", 0, n, "CW", "a", "", "c", "d", "e"] if n == 5
            else [f"{n % 9}", 1, 1, 1, "why?", 0, n, "CW", "a", "b", "c", "d", "e"] for n in range(300)]  # fmt: skip
    table(tmp_path / "test.csv", OFFICIAL, rows)
    words = ("benchmark=next_qa_test", f"benchmark.root={tmp_path}", f"benchmark.annotations={tmp_path / 'test.csv'}")
    assert len(build(composed(*words), "benchmark").samples) == 299
    assert "1 of 300 rows cannot be used and are left out; the first: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="line 7"):
        build(composed(*words, "benchmark.bad_rows=refuse"), "benchmark")
