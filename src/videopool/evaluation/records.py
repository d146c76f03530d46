"""Answering's results: the record of one sample, scored without a judge, and the cost of all answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from videopool.benchmarks import Prompt, Sample
from videopool.benchmarks.letters import parse_letter
from videopool.benchmarks.pllava_scoring import check_answer, generated_text, truth_text
from videopool.benchmarks.scoring import exact_match, token_f1

UNREADABLE, TOO_LONG = "unreadable_video", "too_long"  # status


@dataclass
class AnswerCost:
    """The cost of answering."""

    seconds: Mapping[str, float] = field(default_factory=dict)  # by kind of work
    ahead: float = 0.0  # seconds among these of other processes or threads, parallel to the rest
    # Frames and requests.
    counts: Mapping[str, int] = field(default_factory=lambda: {"frames_decoded": 0, "frames_from_store": 0})
    pool_bytes: int | None = None  # that pooling one clip takes
    pool_seconds: float | None = None  # of one clip, on an accelerator


def sample_fields(sample: Sample) -> dict[str, object]:
    """The fields of every record that come from its sample."""
    return {
        "id": sample.id,
        "clip": sample.clip_id,
        "task": sample.task,
        "question": sample.question,
        "options": list(sample.options),
        "answer": sample.answer,
        **({"pair": sample.pair} if sample.pair else {}),
    }


def failed_record(sample: Sample, status: str, reason: str) -> dict[str, object]:
    """The record of a sample that could not be evaluated; it has no score."""
    return {**sample_fields(sample), "status": status, "reason": reason, "prediction": None, "score": None}


def too_long(sample: Sample, tokens: int | None, limit: int | None, reason: str = "") -> dict[str, object]:
    """The record of a sample whose prompt and answer do not fit the model's context."""
    reason = reason or f"{tokens} tokens do not fit the context of {limit}"
    return {**failed_record(sample, TOO_LONG, reason), "tokens": tokens, "limit": limit}


def score_of(sample: Sample, right: bool) -> float | None:
    """1 or 0; None if there is no answer to compare with, or only a judge can compare."""
    return float(right) if sample.answer and not sample.judged else None


def read_answer(sample: Sample, text: str, prompt: Prompt, parsing: str) -> dict[str, object]:
    """Prediction and score of a generated answer; for multiple choice also the option that it names (`parsed`).

    `parsing` is "strict", or "pllava" to read and score answers as PLLaVA's code does.
    """
    if parsing == "pllava":
        return _read_as_pllava(sample, text, prompt)
    outcome: dict[str, object] = {"prediction": text.strip()}
    if sample.options:
        place = parse_letter(text, sample.options)
        option = None if place is None else sample.options[place]
        return {**outcome, "parsed": option, "score": score_of(sample, option == sample.answer)}
    if sample.answer:
        outcome["token_f1"] = token_f1(text, sample.answer)
    return {**outcome, "score": score_of(sample, exact_match(text, sample.answer))}


def _read_as_pllava(sample: Sample, text: str, prompt: Prompt) -> dict[str, object]:
    prediction = generated_text(text, prompt, bool(sample.options))
    if not sample.options:
        return {"prediction": prediction, "score": score_of(sample, exact_match(prediction, sample.answer))}
    verdict = check_answer(prediction, truth_text(sample.options, sample.answer)) if sample.answer else None
    followed = verdict is None or verdict.followed
    score = None if verdict is None or verdict.right is None else float(verdict.right)
    return {"prediction": prediction, "parsed": prediction if followed else None, "score": score}
