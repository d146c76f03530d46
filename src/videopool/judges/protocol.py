"""Requests to a judge, and the verdicts in its replies.

Two protocols, as Video-ChatGPT has them (arXiv 2306.05424): an answer to a short question is right or wrong, with
a grade; an answer of VCGBench has a grade on each axis of its part. Grades are 0 .. 5. The words are our own.
A verdict is one JSON object with the requested keys. Thoughts, a code fence, words, further keys and numbers as text do
not matter, as long as the verdict is unambiguous. Any other reply has failed; the next request names its fault.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from videopool.benchmarks.letters import without_thoughts
from videopool.chat import Reply, RequestFailed

PROTOCOL = "1"  # raised whenever a text below changes, so that earlier verdicts are not reused
HIGHEST = 5  # grade
ANSWER = "answer"  # the axis of questions with short answers

GRADE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*5(?:\.0)?)?\s*", re.ASCII)
# An object's keys, in lower case, and values; a key may stand twice.
Pairs = tuple[tuple[str, Any], ...]
MOST = 64  # places where a JSON object may begin
FENCE = re.compile(r"\A\s*```\w*\s*\n?(.*?)\n?\s*```\s*\Z", re.DOTALL)
# Strings of either kind, and Python's forms that are not JSON.
TOKEN = re.compile(
    r"(?P<double>\"(?:[^\"\\]|\\.)*\")|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<comma>,)(?=\s*[}\]])"
    r"|\b(?P<word>True|False|None)\b",
    re.DOTALL,
)
TOKEN_OR_BRACE = re.compile(rf"{TOKEN.pattern}|[{{}}]", re.DOTALL)
JSON_WORDS = {"True": "true", "False": "false", "None": "null"}
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
    """A reply without a verdict."""


@dataclass(frozen=True)
class Verdict:
    """A judge's opinion."""

    grade: float  # 0 .. 5
    right: bool | None  # of short answers; None on the axes of VCGBench

    def as_dict(self) -> dict[str, object]:
        """The judge's keys and values."""
        right = {} if self.right is None else {"pred": "yes" if self.right else "no"}
        return {**right, "score": self.grade}


@runtime_checkable
class Judge(Protocol):
    """A model that grades."""

    id: str  # kind, model and protocol: all that verdicts depend on beside the texts; replies are stored by it
    label: str  # kind and model, for names of folders
    concurrency: int  # requests at once
    retries: int
    backoff: float  # seconds; see chat.ask_all

    def check(self) -> None:
        """Raises ChatError if requests cannot be made; makes none itself."""

    def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """One reply. Raises RequestFailed or ChatError."""
        ...

    def close(self) -> None:
        """Free connections and memory."""


@dataclass(frozen=True)
class Item:
    """One request: to grade the prediction for a question, or the predictions for two questions that should agree."""

    axis: str  # a key of ASPECTS
    questions: tuple[str, ...]  # one or two
    reference: str  # the right answer to each
    predictions: tuple[str, ...]  # one per question

    def key(self, judge: str) -> str:
        """SHA-256 of all that a verdict depends on: protocol, judge, texts."""
        content = [PROTOCOL, judge, self.axis, self.questions, self.reference, self.predictions]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()

    def messages(self, failed: str = "") -> list[dict[str, str]]:
        """The request. It holds texts as JSON strings, so that no text can pass for a part of the request.

        `failed` is the fault of an earlier reply.
        """
        numbers = [""] if len(self.questions) == 1 else [f" {n}" for n in range(1, len(self.questions) + 1)]
        named = [(f"Question{n}", text) for n, text in zip(numbers, self.questions, strict=True)]
        named.append(("Reference", self.reference))
        named += [(f"Prediction{n}", text) for n, text in zip(numbers, self.predictions, strict=True)]
        lines = [f"{name}: {json.dumps(text, ensure_ascii=False)}" for name, text in named]
        lines.append(ANSWER_VERDICT if self.axis == ANSWER else VERDICT)
        if failed:
            lines.append(f"An earlier reply could not be used: {failed}. Reply with the JSON object alone.")
        return [
            {"role": "system", "content": SYSTEM.format(aspect=ASPECTS[self.axis])},
            {"role": "user", "content": "\n".join(lines)},
        ]

    def verdict(self, reply: str) -> Verdict:
        """The verdict in a reply. Raises BadVerdict, naming the fault, if it holds none, or two that differ."""
        # A verdict quoted from a text under judgement must not pass for the verdict on it.
        alone = any("{" in text for text in (*self.questions, self.reference, *self.predictions))
        names = ("pred", "score") if self.axis == ANSWER else ("score",)
        try:
            verdicts = {_verdict(pairs, names) for pairs in objects_in(without_thoughts(reply), names, alone)}
            if not verdicts:
                nothing = " and nothing beside it" if alone else ""
                raise ValueError(f"no verdict, a JSON object with {' and '.join(names)}{nothing}")
            if len(verdicts) > 1:
                raise ValueError(f"{len(verdicts)} verdicts that differ")
        except ValueError as error:
            line = " ".join(reply.split())
            raise BadVerdict(f"{error}: {line if len(line) <= 80 else f'{line[:77]}...'!r}") from error
        return verdicts.pop()


def _verdict(pairs: Pairs, names: Sequence[str]) -> Verdict:
    """The verdict in one object. Raises ValueError, naming the fault."""
    for name in names:
        if not any(key == name for key, _ in pairs):
            raise ValueError(f"the key {name} is missing")
    grades = {_grade(value) for key, value in pairs if key == "score"}
    rights = {_right(value) for key, value in pairs if key == "pred"} if "pred" in names else {None}
    if len(grades) > 1 or len(rights) > 1:
        raise ValueError("a key that stands twice with different values")
    return Verdict(grades.pop(), rights.pop())


def _grade(value: object) -> float:
    """A grade: a number, also as text, as in "4/5"."""
    if isinstance(value, str) and (match := GRADE.fullmatch(value)):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= HIGHEST:
        raise ValueError(f"score must be a number from 0 to {HIGHEST}")
    return float(value)


def _right(value: object) -> bool:
    word = str(value).strip(" .!").casefold() if isinstance(value, (str, bool)) else ""
    if word not in WORDS:
        raise ValueError('pred must be "yes" or "no"')
    return WORDS[word]


def objects_in(text: str, names: Sequence[str], alone: bool = False) -> list[Pairs]:
    """The outermost objects of a text that have any of some keys, whatever surrounds them, as JSON or in Python's form.

    Python's form has single quotes, True, False, None, and a comma after the last value. `alone`: only count an object
    that is the whole text, or a whole code fence.
    """
    if alone and (match := FENCE.match(text)):
        text = match[1]
    found, ends = list[Pairs](), dict[int, int]()
    start = text.find("{")
    for _ in range(MOST):
        if start < 0:
            break
        if start not in ends:
            ends |= _ends(text, start)
        end = ends[start]
        try:
            # Valid JSON has no match outside of its strings, which stay as they are.
            content = json.loads(TOKEN.sub(_as_json, text[start:end]), object_pairs_hook=_pairs)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if alone and text[:start].strip() + text[end:].strip():
            return []
        found += _flat(content, names)
        start = text.find("{", end)
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    return tuple((key.strip().casefold(), value) for key, value in pairs)


def _ends(text: str, start: int) -> dict[int, int]:
    """The ends of the object that begins at `start` and of those in it, by their beginnings; the beginning itself for
    one that never ends. Braces in strings do not count.
    """
    ends, opened = dict[int, int](), list[int]()
    for match in TOKEN_OR_BRACE.finditer(text, start):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}":
            ends[opened.pop()] = match.end()
            if not opened:
                break
    return ends | {begun: begun for begun in opened}


def _as_json(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return json.dumps(re.sub(r"\\(['\"\\])", r"\1", match["single"]), ensure_ascii=True)
    if match["word"]:
        return JSON_WORDS[match["word"]]
    return match["double"] or ""


def _flat(content: object, names: Sequence[str]) -> Iterator[Pairs]:
    """The outermost objects (tuples of pairs) with any of the keys, within objects and lists."""
    if isinstance(content, tuple):
        if any(key in names for key, _ in content):
            yield content
            return
        content = [value for _, value in content]
    if isinstance(content, list):
        for value in content:
            yield from _flat(value, names)
