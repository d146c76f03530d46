"""Scores of short answers."""

import re
import string
import unicodedata
from collections import Counter
from functools import lru_cache

LETTERS = string.ascii_uppercase  # of options
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(maxsize=4096)
def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and repeated spaces."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(" " if c in string.punctuation else c for c in text)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answer: str) -> bool:
    """Whether two short answers agree after normalisation."""
    return normalise(prediction) == normalise(answer)


def token_f1(prediction: str, answer: str) -> float:
    """F1 of the words of two short answers after normalisation, 0..1.

    As in SQuAD (Rajpurkar et al., arXiv 1606.05250, section 6.1): a word counts as often as both have it. Two answers
    that normalise to nothing agree only with each other.
    """
    predicted, wanted = normalise(prediction).split(), normalise(answer).split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted))
