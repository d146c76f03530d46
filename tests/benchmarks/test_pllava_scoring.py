"""PLLaVA's reading and scoring of answers, as recorded from the PLLaVA reference code, and where the default parts."""

import pytest

from reference_tables import EACH_SOURCE, read_table
from videopool.benchmarks import Prompt
from videopool.benchmarks.letters import parse_letter
from videopool.benchmarks.pllava_scoring import (
    CHATML,
    VICUNA,
    answer_text,
    check_answer,
    generated_text,
    truth_text,
    turns_of,
)

BEGUN = {"mvbench": "Best option:(", "videoqabench": "\nAnswer: In the video,"}


def begun(row):
    """How the recorded program began the answer; VideoQA's beginning belongs to its own conversations."""
    if row["style"] == "videoqabench" and "videoqa" not in row["conv_mode"]:
        return ""
    return BEGUN.get(row["style"], "")


@EACH_SOURCE
def test_answers_are_cut_out_of_decoded_text(source, shared):
    rows = read_table("answer_postprocess", source, shared)
    for row in rows:
        turns = CHATML if "llavanext" in row["conv_mode"] else VICUNA
        opening = "(" if row["style"] == "mvbench" else ""
        assert answer_text(row["decoded_text"], turns, begun(row), opening) == row["pred"], row
        if "gt" in row:
            assert check_answer(row["pred"], row["gt"]).right is row["correct"]
    assert len(rows) == (63 if source == "part" else 243)


@EACH_SOURCE
def test_generated_text_alone_gives_the_same_answer(source, shared):
    for row in read_table("answer_postprocess", source, shared):
        user = "<|im_start|>user" if "llavanext" in row["conv_mode"] else "USER:"
        prompt = Prompt(
            f"{user} {{image}} {{question}} ",
            multiple_choice="{question} {options}",
            option="({letter}) {text}",
            separator=" ",
            answer_prefix=BEGUN["mvbench"],
            describe="",
            open_answer_prefix=begun(row),
        )
        assert turns_of(prompt) is (CHATML if "llavanext" in row["conv_mode"] else VICUNA)
        assert generated_text(row["continuation"], prompt, row["style"] == "mvbench") == row["pred"], row


@EACH_SOURCE
def test_verdicts_equal_the_reference(source, shared):
    rows = read_table("check_ans", source, shared)
    for row in rows:
        verdict = check_answer(row["pred"], row["gt"])
        # Where the reference raises there is no verdict: the sample is not scored.
        assert verdict.right is (None if "raises" in row else row["result"]), row
        assert verdict.followed is not row["warned_no_instruction_following"], row
    assert len(rows) == 107
    assert sum("raises" in row for row in rows) == 2


OPTIONS = ["Ate the medicine.", "no", "The box.", "dog", "elf", "fog", "last one", "eighth"]
# Prediction and truth: what the reference makes of it, why the strict default does not.
DIFFERENCES = {
    (" (A)", "(A) Ate the medicine."): (False, "white space before the letter"),
    ("  A", "(A) Ate the medicine."): (False, "white space before the letter"),
    ("The answer is (A)", "(A) Ate the medicine."): (False, "words before the letter"),
    ("Answer: A", "(A) Ate the medicine."): (False, "words before the letter"),
    ("no", "(B) no"): (False, "the option's own text"),
    ("C: The box", "(C) The box."): (False, "a colon behind the letter"),
    ("(H) eighth", "(H) eighth"): (False, "a letter beyond G"),
    ("(h", "(H) eighth"): (False, "a letter beyond G"),
    ("A\u3002", "(A) Ate the medicine."): (False, "a full stop as Chinese has it"),
    ("(A)\n(B) no", "(A) Ate the medicine."): (True, "two letters"),
    ("(A)(B)", "(B) no"): (True, "two letters"),
    ("...a...", "(A) Ate the medicine."): (True, "dots around the letter"),
}


@EACH_SOURCE
def test_the_strict_default_differs_only_where_documented(source, shared):
    found = {}
    for row in read_table("check_ans", source, shared):
        # Truths of another form than "(A) text" cannot be written, and an answer that is no option is refused when
        # the benchmark is read; "(A)" alone, where the reference raises, is an empty option.
        if "raises" in row or row["gt"][0] != "(" or row["gt"][1] == "@":
            continue
        place = parse_letter(row["pred"], OPTIONS)
        right = place == "ABCDEFGH".index(row["gt"][1])
        if right is not row["result"]:
            found[row["pred"], row["gt"]] = row["result"]
    assert found == {key: result for key, (result, _) in DIFFERENCES.items()}


def test_an_answer_that_names_nothing_is_wrong_in_both():
    assert check_answer("(", "(A) x").right is False
    assert check_answer("", "(A) x").right is False
    assert parse_letter("", OPTIONS) is None


@EACH_SOURCE
def test_of_equal_options_the_reference_takes_the_last(source, shared):
    for row in read_table("mvbench_qa_template", source, shared):
        assert truth_text(row["item"]["candidates"], row["item"]["answer"]) == row["answer"]
    with pytest.raises(ValueError, match="not in list"):
        truth_text(["x"], "y")


@EACH_SOURCE
def test_accuracies_equal_the_reference(source, shared):
    recorded = read_table("score_aggregation", source, shared)["mvbench"]
    verdicts = [(row["task_type"], check_answer(row["pred"], row["gt"]).right) for row in recorded["result_list"]]
    for name, accuracy in recorded["leaderboard"].items():
        rights = [right for task, right in verdicts if name in (task, "Avg")]
        assert sum(rights) / len(rights) * 100 == accuracy
