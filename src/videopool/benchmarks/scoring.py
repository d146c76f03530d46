"""From a model's answer to a score."""

from collections import Counter

from videopool.benchmarks.letters import LETTERS, normalise, parse_letter

__all__ = ["LETTERS", "exact_match", "normalise", "parse_letter", "token_f1"]


def exact_match(prediction: str, answer: str) -> bool:
    """Whether two short answers agree after normalisation."""
    return normalise(prediction) == normalise(answer)


def token_f1(prediction: str, answer: str) -> float:
    """Harmonic mean of the shares of words that two short answers have in common, after normalisation, 0..1.

    As in SQuAD (Rajpurkar et al., arXiv 1606.05250, section 6.1): a word counts as often as it stands in both. Two
    answers of which nothing is left after normalisation agree only with each other.
    """
    said, wanted = normalise(prediction).split(), normalise(answer).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))
