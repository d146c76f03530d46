"""The record of one sample: what it is, what was answered, and what that is worth without a judge."""

from videopool.benchmarks import Prompt, Sample
from videopool.benchmarks.pllava_scoring import check_answer, generated_text, truth_text
from videopool.benchmarks.scoring import exact_match, parse_letter, token_f1


def about(sample: Sample) -> dict[str, object]:
    """What every record says of its sample."""
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
    return {**about(sample), "status": status, "reason": reason, "prediction": None, "score": None}


def score_of(sample: Sample, right: bool) -> float | None:
    """1 or 0; None where there is no answer to compare with, or where only a judge can compare."""
    return float(right) if sample.answer and not sample.judged else None


def read_answer(sample: Sample, text: str, prompt: Prompt, parsing: str) -> dict[str, object]:
    """Prediction and score of a generated answer; for multiple choice also which option it names (`parsed`).

    Args:
        text: as the model wrote it.
        prompt: that it answers.
        parsing: "strict" or, as PLLaVA's code reads and scores answers, "pllava".
    """
    return _strictly(sample, text) if parsing == "strict" else _as_pllava(sample, text, prompt)


def _strictly(sample: Sample, text: str) -> dict[str, object]:
    outcome: dict[str, object] = {"prediction": text.strip()}
    if sample.options:
        place = parse_letter(text, sample.options)
        outcome["parsed"] = None if place is None else sample.options[place]
        right = place is not None and sample.options[place] == sample.answer
    else:
        right = exact_match(text, sample.answer)
        if sample.answer:
            outcome["token_f1"] = token_f1(text, sample.answer)
    return {**outcome, "score": score_of(sample, right)}


def _as_pllava(sample: Sample, text: str, prompt: Prompt) -> dict[str, object]:
    prediction = generated_text(text, prompt, bool(sample.options))
    if not sample.options:
        return {"prediction": prediction, "score": score_of(sample, exact_match(prediction, sample.answer))}
    verdict = check_answer(prediction, truth_text(sample.options, sample.answer)) if sample.answer else None
    followed = verdict is None or verdict.followed
    score = None if verdict is None or verdict.right is None else float(verdict.right)
    return {"prediction": prediction, "parsed": prediction if followed else None, "score": score}
