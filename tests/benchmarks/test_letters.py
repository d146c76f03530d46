"""Generated answers to multiple choice: what names an option in so many words, and that nothing is guessed."""

import random
import time

import pytest

from videopool.benchmarks.letters import parse_letter

COLOURS = ["red", "blue", "green", "yellow"]
SECOND = [
    "**B**",
    "[B]",
    "\\boxed{B}",
    "<answer>B</answer>",
    "Answer: B",
    "The answer is (B).",
    "\uff22",
    "\uff08\uff22\uff09",
    "b",
    "(b)",
    "B) blue",
    "**B) blue**",
    "**B**. blue",
    "B\n\nThe ball is blue in the video.",
    "B. The ball moves and it is not there.",
    "B because the ball is moving",
    "B, because the sky has that colour",
    "The correct answer is **B**.",
    "The correct answer is **B) blue**",
    "Answer: **B**",
    "**Answer:** B",
    "### Answer: B",
    "`B`",
    '"B"',
    "'B'",
    '{"answer": "B"}',
    "<think>It is A or C? A.</think>B",
    "<think>A</think>\n\nAnswer: B",
    "hmm A or C</think> B",
    "B</s>",
    "B<|im_end|>",
    "Option B",
    "option B is correct",
    "B is correct",
    "B is the correct answer.",
    "The answer is: B",
    "Final answer: B",
    "the correct option is b",
    "I choose B",
    "I think it is B.",
    "I would go with B.",
    "It's B.",
    "$B$",
    "$\\boxed{\\text{B}}$",
    "\\(\\boxed{B}\\)",
    "The answer is \\boxed{B. blue}",
    "blue",
    "Blue.",
    "BLUE",
    "blue\nblue",
    "B\nB",
    "B B B",
    "B. blue. B. blue.",
    "The answer is blue.",
    "Answer: blue",
    "- B",
    "> B",
    "* **B**",
    "\u3010B\u3011",
    "B\uff1ablue",
    "B\u3001blue",
    "B - blue",
    "B \u2013 blue",
    "B blue",
    "B (blue)",
    "<b>B</b>",
    "<B>",
    "B!",
    "\u200bB",
    "B.blue",
    "B)",
    "B )",
    "[B] blue",
    "**B: blue**",
    "The best answer to the question is B.",
    "Answer is B",
    "ANSWER: B",
    "Ans: B",
    "ans. B",
    "So the answer is B",
    "Therefore, the correct choice is (B) blue.",
    "B. blue\n\nExplanation: the object has the colour of the sky.",
    "__B__",
    "_B_",
    "B:",
    "b)",
    "b. blue",
    "(B",
    "B.\n",
    "\n\nB",
    "The correct letter is B.",
    "Correct answer: B",
    "Answer - B",
    "Option (B)",
    "Choice B.",
    "My answer is B",
    "(B) blue. The ball is round.",
    "The answer is B, since it is so.",
    "<option>B</option>",
    "<final_answer>B</final_answer>",
    "Answer:\nB",
    'The answer is "B".',
    "B is right",
    "ans. B",
    "It is (B) blue",
    "Option B: blue",
    "the answer is  b.",
    "B,\nbecause of the sky",
]
NONE = [
    "not B",
    "The answer is not B.",
    "It isn't (B)",
    "B is wrong",
    "B is not correct",
    "A or B",
    "A, because B is wrong",
    "A, because B is too small",
    "B, not A",
    "(A) or (B)",
    "B or C",
    "a or b",
    "option a or option b",
    "Either A or B",
    "A and B",
    "A/B",
    "A, B",
    "A B",
    "A) B)",
    "a) b)",
    "a. b.",
    "both (a) and (b)",
    "A man is walking",
    "a man",
    "I think so",
    "I",
    "B?",
    "B) red",
    "(A) blue",
    "B. red",
    "A. red B. blue",
    "A. red\nB. blue\nC. green\nD. yellow",
    "A. red\nB. blue\nC. green\nD. yellow\nAnswer: B",
    "B\nC",
    "B\nc",
    "B: c",
    "B) blue or red",
    "blue or red",
    "blue and green",
    "B. blue, or A. red",
    "Answer: A. Answer: B.",
    "<think>B",
    "<think>B is right",
    "(E)",
    "E",
    "Answer: F",
    "",
    "none of the above",
    "It could be B or something",
    "red blue",
    "\\boxed{A} \\boxed{B}",
    "<answer>A</answer><answer>B</answer>",
    "**A** or **B**",
    "A vs B",
    "neither B",
    "All except B",
    "B is incorrect",
    "Rather than B",
    "the answer is A man",
    "answer: a man walks",
    "A ball is blue",
    "In part (a) and part (b)",
    "B. The answer is A",
    "B. Answer: red",
    "The answer is blue or red",
    "Option B is ruled out",
    "I can't answer",
    "e.g. this (e.g. that)",
    "A-B",
    "A+B",
    "A&B",
    "B then A",
    "a, b",
    "If B",
    "vitamin B",
    "Plan B is good",
    "Answer: A Answer: B",
    "answer: a The answer is (B).",
    "Answer: A Option B is correct",
    "no. A) blue",
]


@pytest.mark.parametrize("text", SECOND)
def test_the_second_option_is_named(text):
    assert parse_letter(text, COLOURS) == 1


@pytest.mark.parametrize("text", NONE)
def test_no_option_is_named_or_several(text):
    assert parse_letter(text, COLOURS) is None


FORMS = [
    "{L}", "({L})", "[{L}]", "**{L}**", "{L}.", "{L})", "\\boxed{{{L}}}", "<answer>{L}</answer>", "Answer: {L}",
    "The answer is {L}.", "The answer is ({L}).", "option {L}", "{L}) {text}", "({L}) {text}", "**{L}. {text}**",
    "{L}: {text}", "{text}", "The answer is {text}.", "Answer: {text}", '"{L}"', "({l})", "{l})", "answer: {l}",
    "Option {L} is correct", "{L} because it is so.", "I choose {L}.", "option {l}",
]  # fmt: skip
JOINS = [", ", " or ", " and ", "\n", "\n\n", ". ", "; ", " / ", ", not ", ", because ", " rather than ", 
         " but also ", ". Or maybe ", ", or else ", ".\nNo, wait: ", " (or ", " vs ", " -> ", ": "]  # fmt: skip
WORDS = [COLOURS, ["left", "right", "up"], ["yes", "no"], ["a man runs", "a dog sits", "nobody is there", "a man"],
         ["C is cooking", "C washes a cup", "C reads", "C leaves the room", "C sleeps"]]  # fmt: skip


def said(form, options, place):
    return form.format(L="ABCDE"[place], l="abcde"[place], text=options[place])


@pytest.mark.parametrize("options", WORDS, ids=lambda options: options[0])
def test_each_form_names_its_option(options):
    for form in FORMS:
        for place in range(len(options)):
            assert parse_letter(said(form, options, place), options) == place, (form, place)


def test_no_text_that_names_two_options_is_parsed():
    drawn = random.Random(0)
    for _ in range(3000):
        options = drawn.choice(WORDS)
        first, second = drawn.sample(range(len(options)), 2)
        both = [said(drawn.choice(FORMS), options, place) for place in (first, second)]
        text = drawn.choice(JOINS).join(both)
        assert parse_letter(text, options) is None, text


def test_a_form_said_twice_still_names_its_option():
    drawn = random.Random(1)
    found = 0
    for _ in range(600):
        options = drawn.choice(WORDS[:3])
        place = drawn.randrange(len(options))
        text = "\n".join(said(drawn.choice(FORMS), options, place) for _ in range(2))
        assert parse_letter(text, options) in (place, None), text
        found += parse_letter(text, options) == place
    assert found > 570


@pytest.mark.parametrize(
    "text", ["A man is walking.", "A dog", "A", "a", "I see a man.", "A ball, I think.", "Answer: A man.", "a cat"]
)
def test_the_article_is_no_option(text):
    assert parse_letter(text, ["red", "blue"]) == (0 if text in ("A", "a") else None)


PERSON = ["C sleeps.", "C is cooking.", "C eats."]  # called C


@pytest.mark.parametrize(
    ("text", "options", "place"),
    [
        ("C is cooking.", PERSON, 1), ("(A) C sleeps.", PERSON, 0), ("B. C is cooking while C sings.", PERSON, 1),
        ("C", PERSON, 2), ("B, C", PERSON, None),
        # Options that are letters or signs.
        ("B", ["B", "A"], None), ("B", ["A", "B"], 1), ("x", ["x", "y"], 0),
        ("+", ["-", "+"], 1), ("?", ["-", "+"], None),
        ("", ["-", "+"], None), ("-1", ["1", "-1"], 1), ("1", ["1", "-1"], 0), ("5", ["4", "5"], 1),
        ("J", list("klmnopqrst"), 9), ("I.", list("klmnopqrst"), 8), ("I think so", list("klmnopqrst"), None),
        # Options that deny.
        ("B) not moving", ["moving", "not moving"], 1), ("(A) moving", ["moving", "not moving"], 0),
        ("B. False", ["True", "False"], 1), ("A) not moving", ["moving", "not moving"], None),
        ("A. Yes, there is no doubt.", ["yes", "no"], 0), ("A. No.", ["yes", "no"], None),
        # One option within another.
        ("A) red and blue", ["red", "red and blue"], None), ("B) red and blue", ["red", "red and blue"], 1),
        ("B) red ball", ["ball", "red ball"], 1), ("A) ball", ["red ball", "ball"], None),
        # Equal options: either is as good.
        ("red", ["blue", "red", "red"], 1), ("(C)", ["blue", "red", "red"], 1),
        ("(B) or (C)", ["blue", "red", "red"], 1), ("dog", ["Dog", "dog"], 1),
        # An explanation may speak of what is not the answer.
        ("B\n\nThe ball moves from left to right.", ["left", "right"], 1),
        ("B, because it moves from left to right.", ["left", "right"], 1),
        ("B. It moves to the left.", ["left", "right"], None),
        ("B) right. It begins at the left.", ["left", "right"], 1),
    ],
)  # fmt: skip
def test_options_that_look_like_words_and_letters(text, options, place):
    assert parse_letter(text, options) == place


def test_long_texts_take_no_time():
    started = time.process_time()
    for text in ("A " * 5000, "(" * 9000, "not " * 5000 + "B", "**" * 9000, "<think>" * 999, "answer is " * 999):
        parse_letter(text, COLOURS)
    assert time.process_time() - started < 5
