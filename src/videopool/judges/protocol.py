"""What a judge is asked, and what counts as a verdict.

Two protocols, as Video-ChatGPT has them (arXiv 2306.05424): an answer to a short question is right or wrong, with
a grade beside it; an answer of VCGBench has a grade on each axis of its part. Grades are 0 .. 5. The words are our own.
A verdict is one JSON object with the keys asked for. What stands around it does not matter as long as there is no
doubt: thoughts, a code fence, words, further keys, numbers as text. Anything else is a failed reply, which is asked for
again with what was wrong.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from videopool.chat import Reply, RequestFailed
from videopool.judges.objects import Pairs, answer_of, objects_in

PROTOCOL = "1"  # counted up whenever a text below changes: earlier verdicts are then not used
HIGHEST = 5  # grade
ANSWER = "answer"  # the one axis of questions with short answers

GRADE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*5(?:\.0)?)?\s*", re.ASCII)
WORDS = {"yes": True, "no": False, "true": True, "false": False}

SAME_MEANING = "Compare meanings, not wording: synonyms and paraphrases match."
ASPECTS = {
    ANSWER: "whether the prediction means the same as the reference",
    "correctness_of_information": "whether the facts of the prediction agree with the reference",
    "detail_orientation": "whether the prediction is as complete and as specific as the reference",
    "contextual_understanding": "whether the prediction fits the situation and theme that the reference describes",
    "temporal_understanding": "whether the prediction has events in the same order of time as the reference",
    "consistency": "whether both predictions agree with the reference and with each other",
}
SYSTEM = "You grade answers to questions about videos. You judge {aspect}. " + SAME_MEANING
VERDICT = 'Reply with JSON alone, {"score": N}: N from 0 (not at all) to 5 (fully).'
ANSWER_VERDICT = (
    'Reply with JSON alone, {"pred": P, "score": N}: P is "yes" if the prediction is right, else "no"; '
    "N from 0 (no match) to 5 (full match)."
)


class BadVerdict(RequestFailed):
    """A reply that is no verdict."""


@dataclass(frozen=True)
class Verdict:
    """A judge's opinion.

    Attributes:
        grade: 0 .. 5.
        right: of short answers; None on the axes of VCGBench.
    """

    grade: float
    right: bool | None

    def as_dict(self) -> dict[str, object]:
        """The keys and values that the judge gave."""
        return {"score": self.grade} if self.right is None else {"pred": _word(self.right), "score": self.grade}


@runtime_checkable
class Judge(Protocol):
    """Who grades.

    Attributes:
        id: kind, model and protocol: all that verdicts depend on beside the texts. Replies are kept by it.
        label: kind and model, for names of folders.
        concurrency: requests at once.
        retries, backoff: see chat.ask_all.
    """

    id: str
    label: str
    concurrency: int
    retries: int
    backoff: float

    def check(self) -> None:
        """Raises ChatError if no request can be made, as far as that can be said without one."""

    def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """One reply. Raises RequestFailed or ChatError."""
        ...

    def close(self) -> None:
        """Give back what is held."""


@dataclass(frozen=True)
class Item:
    """One thing to be graded: the prediction for a question, or those for two questions that should agree.

    Attributes:
        axis: a key of ASPECTS.
        questions, predictions: one each, or two.
        reference: the right answer to all of them.
    """

    axis: str
    questions: tuple[str, ...]
    reference: str
    predictions: tuple[str, ...]

    def key(self, judge: str) -> str:
        """SHA-256 of all that a verdict depends on: protocol, judge, texts."""
        content = [PROTOCOL, judge, self.axis, self.questions, self.reference, self.predictions]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()

    def messages(self, failed: str = "") -> list[dict[str, str]]:
        """The request. Texts are put in as JSON strings, so that none can pass for a part of the request.

        Args:
            failed: what was wrong with an earlier reply.
        """
        numbers = [""] if len(self.questions) == 1 else [f" {n}" for n in range(1, len(self.questions) + 1)]
        lines = [f"Question{n}: {_quoted(text)}" for n, text in zip(numbers, self.questions, strict=True)]
        lines.append(f"Reference: {_quoted(self.reference)}")
        lines += [f"Prediction{n}: {_quoted(text)}" for n, text in zip(numbers, self.predictions, strict=True)]
        lines.append(ANSWER_VERDICT if self.axis == ANSWER else VERDICT)
        if failed:
            lines.append(f"An earlier reply could not be used: {failed}. Reply with the JSON object alone.")
        return [
            {"role": "system", "content": SYSTEM.format(aspect=ASPECTS[self.axis])},
            {"role": "user", "content": "\n".join(lines)},
        ]

    def verdict(self, text: str) -> Verdict:
        """The verdict in a reply. Raises BadVerdict if it holds none, or two that differ, saying what is wrong."""
        told = answer_of(text)
        # What a text under judgement says must not pass for the verdict on it.
        quoted = any("{" in given for given in (*self.questions, self.reference, *self.predictions))
        names = ("pred", "score") if self.axis == ANSWER else ("score",)
        found = objects_in(told, names, alone=quoted)
        if not found:
            alone = " and nothing beside it" if quoted else ""
            raise BadVerdict(f"no verdict, a JSON object with {' and '.join(names)}{alone}: {_short(text)}")
        verdicts = {self._of(one, names, text) for one in found}
        if len(verdicts) > 1:
            raise BadVerdict(f"{len(verdicts)} verdicts that differ: {_short(text)}")
        return verdicts.pop()

    def _of(self, pairs: Pairs, names: Sequence[str], text: str) -> Verdict:
        for name in names:
            if not any(key == name for key, _ in pairs):
                raise BadVerdict(f"the key {name} is missing: {_short(text)}")
        scores = {_score(value, text) for key, value in pairs if key == "score"}
        rights = {_right(value, text) for key, value in pairs if key == "pred"} if "pred" in names else {None}
        if len(scores) > 1 or len(rights) > 1:
            raise BadVerdict(f"a key that stands twice with different values: {_short(text)}")
        return Verdict(scores.pop(), rights.pop())


def _score(value: object, text: str) -> float:
    """A grade: a number, as a number or as text, also as in "4/5"."""
    if isinstance(value, str) and (match := GRADE.fullmatch(value)):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= HIGHEST:
        raise BadVerdict(f"score must be a number from 0 to {HIGHEST}: {_short(text)}")
    return float(value)


def _right(value: object, text: str) -> bool:
    word = str(value).strip(" .!").casefold() if isinstance(value, (str, bool)) else ""
    if word not in WORDS:
        raise BadVerdict(f'pred must be "yes" or "no": {_short(text)}')
    return WORDS[word]


def _word(right: bool) -> str:
    return "yes" if right else "no"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 80 else f"{line[:77]}...")
