"""Read and score answers as PLLaVA's evaluation does, to reproduce published numbers.

The default is the strict reading of letters.py; docs/reference_differences.md lists the differences.
PLLaVA (arXiv 2404.16994): tasks/eval/eval_utils.py, tasks/eval/model_utils.py and tasks/eval/mvbench of its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from videopool.benchmarks.prompts import Prompt

KNOWN_LETTERS = "abcdefg"
OPENING = "("
Turns = tuple[str, str]  # start and end of the assistant's turn in decoded text
VICUNA: Turns = ("ASSISTANT:", "</s>")
CHATML: Turns = ("<|im_start|> assistant\n", "<|im_end|>\n")


def turns_of(prompt: Prompt) -> Turns:
    """The turns of a prompt."""
    return CHATML if "<|im_start|>" in prompt.template else VICUNA


def answer_text(decoded: str, turns: Turns, begun: str = "", opening: str = "") -> str:
    """The answer within the decoded text of a whole conversation.

    Drops all up to the last turn of the assistant, then all up to the first `begun` (the start of the answer that the
    prompt gave) and every further `begun`, and puts `opening` ("(" for multiple choice) in front.
    """
    start, end = turns
    text = decoded.split(start)[-1].removesuffix(end).strip()
    if begun:
        text = "".join(text.split(begun.strip())[1:])
    return opening + text if opening else text.strip()


def generated_text(generated: str, prompt: Prompt, multiple_choice: bool) -> str:
    """The answer as PLLaVA reads it from the text generated after a prompt."""
    turns, begun = turns_of(prompt), prompt.prefix(multiple_choice)
    return answer_text(turns[0] + begun + generated, turns, begun, OPENING if multiple_choice else "")


@dataclass(frozen=True)
class Verdict:
    """PLLaVA's verdict on a multiple-choice answer."""

    right: bool | None  # None where PLLaVA's code raises (a truth of one word); such a sample is not scored
    followed: bool  # False if the first word has none of the letters a to g


def check_answer(prediction: str, truth: str) -> Verdict:
    """PLLaVA's rule: a prediction is right if its first word and that of the truth, "(B) the option", overlap.

    One of the two words, in lower case, must contain the other.
    """
    word = prediction.lower().split(" ")[0]
    letter, _, rest = truth.lower().partition(" ")
    if not rest:
        return Verdict(None, True)
    followed = any(known in word for known in KNOWN_LETTERS)
    return Verdict(followed and (word.replace(".", "") in letter or letter in word), followed)


def truth_text(options: Sequence[str], answer: str) -> str:
    """The right answer as PLLaVA writes it; the last of equal options counts. Raises ValueError if it is no option."""
    index = len(options) - 1 - list(reversed(options)).index(answer)
    return f"({ascii_uppercase[index]}) {answer}"
