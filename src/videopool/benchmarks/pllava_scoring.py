"""Answers read and scored as PLLaVA's evaluation does it, to reproduce published numbers.

The default is the strict reading in scoring.py; docs/reference_differences.md says where the two part.
PLLaVA (arXiv 2404.16994): tasks/eval/eval_utils.py, tasks/eval/model_utils.py and tasks/eval/mvbench of its code.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from videopool.benchmarks.prompts import Prompt
from videopool.benchmarks.scoring import LETTERS

KNOWN_LETTERS = "abcdefg"
OPENING = "("


@dataclass(frozen=True)
class Turns:
    """What begins and what closes the assistant's turn in decoded text."""

    assistant: str
    closing: str


VICUNA = Turns("ASSISTANT:", "</s>")
CHATML = Turns("<|im_start|> assistant\n", "<|im_end|>\n")


def turns_of(prompt: Prompt) -> Turns:
    """The turns that a prompt is written in."""
    return CHATML if "<|im_start|>" in prompt.template else VICUNA


def answer_text(decoded: str, turns: Turns, begun: str = "", opening: str = "") -> str:
    """The answer within the decoded text of a whole conversation.

    All up to the last turn of the assistant goes, then all up to the first `begun` and every further `begun`.

    Args:
        decoded: prompt and continuation.
        turns: what begins and closes the assistant's turn.
        begun: the beginning of the answer that the prompt gave.
        opening: put in front again; "(" for multiple choice.
    """
    text = decoded.split(turns.assistant)[-1].removesuffix(turns.closing).strip()
    if begun:
        text = "".join(text.split(begun.strip())[1:])
    return opening + text if opening else text.strip()


def generated_text(generated: str, prompt: Prompt, multiple_choice: bool) -> str:
    """The answer as PLLaVA reads it from what was generated behind a prompt."""
    begun = prompt.answer_prefix if multiple_choice else prompt.open_answer_prefix
    turns = turns_of(prompt)
    opening = OPENING if multiple_choice else ""
    return answer_text(turns.assistant + begun + generated, turns, begun, opening)


@dataclass(frozen=True)
class Verdict:
    """What became of a multiple-choice answer.

    Attributes:
        right: None where PLLaVA's code raises (a truth of one word); such a sample is not scored.
        followed: False where the first word holds none of the letters a to g.
    """

    right: bool | None
    followed: bool


def check_answer(prediction: str, truth: str) -> Verdict:
    """Whether a prediction is right by PLLaVA's rule: the first words, in lower case, contain one another.

    Args:
        prediction: as answer_text gives it.
        truth: as truth_text gives it: "(B) the option".
    """
    said = prediction.lower().split(" ")[0]
    letter, _, rest = truth.lower().partition(" ")
    if not rest:
        return Verdict(None, True)
    followed = any(known in said for known in KNOWN_LETTERS)
    return Verdict(followed and (said.replace(".", "") in letter or letter in said), followed)


def truth_text(options: Sequence[str], answer: str) -> str:
    """The right answer as PLLaVA writes it; the last of equal options counts.

    Raises:
        ValueError: the answer is not among the options.
    """
    index = len(options) - 1 - list(reversed(options)).index(answer)
    return f"({LETTERS[index]}) {answer}"


def mvbench_accuracies(verdicts: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Accuracy in percent of each task and, as "Avg", of all samples together, from (task, right).

    Raises:
        ValueError: there is nothing to average.
    """
    tasks: dict[str, list[bool]] = defaultdict(list)
    for task, right in verdicts:
        tasks[task].append(right)
    if not tasks:
        raise ValueError("no sample was scored")
    every = [right for rights in tasks.values() for right in rights]
    return {name: sum(rights) / len(rights) * 100 for name, rights in {**tasks, "Avg": every}.items()}
