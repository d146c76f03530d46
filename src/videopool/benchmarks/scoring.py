"""From a model's answer to a score."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

LETTERS = string.ascii_uppercase
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LEADING = re.compile(r"^\(?\s*([A-Za-z])\s*(?:\)|[.:,](?=\s|$)|$)")
_BRACKETED = re.compile(r"\(\s*([A-Za-z])\s*\)")
_PHRASE = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*\(?([A-Za-z])\b(?!['\w])\)?", re.IGNORECASE)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and repeated spaces; for comparing short answers."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(" " if c in string.punctuation else c for c in text)
    return " ".join(_ARTICLES.sub(" ", text).split())


def parse_letter(text: str, options: Sequence[str]) -> int | None:
    """Which option a generated answer names; None if it names none, or more than one.

    Accepts "A", "(A)", "A.", "A) text", "A: text", "answer is A", and the text of exactly one option.
    A letter and the text of another option contradict each other and name none.
    """
    said = text.strip()
    named = {m.upper() for m in _BRACKETED.findall(said)}
    if match := _LEADING.match(said):
        named.add(match.group(1).upper())
    for phrase in _PHRASE.finditer(said):
        # "answer is a dog": a lone lower-case a before more words is an article
        if phrase.group(1) != "a" or not said[phrase.end() :].strip(" .)"):
            named.add(phrase.group(1).upper())
    letters = {LETTERS.index(letter) for letter in named}
    if len(letters) > 1 or any(index >= len(options) for index in letters):
        return None
    plain = normalise(said)
    whole = [index for index, option in enumerate(options) if normalise(option) == plain]
    if letters:
        (index,) = letters
        rest = normalise(_LEADING.sub("", said, count=1))
        other = [i for i, option in enumerate(options) if rest and normalise(option) == rest]
        return None if other and index not in other else index
    return whole[0] if len(whole) == 1 else None


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
