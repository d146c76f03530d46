"""What a sheet's answers to multiple-choice questions mean: the text, the place or the letter of an option."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.tables import Row

KINDS = ("auto", "text", "index", "number", "letter")
FIRST = {"index": 0, "number": 1, "place": None}  # the first option's number; None: as the sheet's columns have it
SHOWN = 40  # characters of an option in an error message


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question's options, and its answer as the sheet gives it; first: the first option's number."""

    row: Row
    options: tuple[str, ...]
    said: str
    first: int = 0


def answers_of(choices: Sequence[Choice], kind: str = "auto") -> list[str]:
    """The text of each right option; "" where the sheet gives no answer.

    Args:
        choices: all questions of a sheet.
        kind: "text"; "index", counted from 0; "number", from 1; "letter", from A; or "auto": the text, the place
            (counted as the columns are: from 1 behind a1, a2 ..., else from 0) or the letter, the first of these
            that fits every answer of the sheet. If none does, each answer is a text, or else a place.

    Raises:
        BenchmarkError: no such kind, or an answer that is none of its options, naming the row.
    """
    if kind not in KINDS:
        raise BenchmarkError(f"benchmark.answers={kind!r}: choose one of {', '.join(KINDS)}")
    given = [choice for choice in choices if choice.said]
    if kind == "auto":
        fitting = [k for k in ("text", "place", "letter") if all(_meant(choice, k) is not None for choice in given)]
        kinds: tuple[str, ...] = tuple(fitting[:1]) or ("text", "place")
    else:
        kinds = (kind,)
    return [_answer(choice, kinds) if choice.said else "" for choice in choices]


def _answer(choice: Choice, kinds: Sequence[str]) -> str:
    for kind in kinds:
        if (answer := _meant(choice, kind)) is not None:
            return answer
    listed = [option if len(option) <= SHOWN else f"{option[:SHOWN]}..." for option in choice.options]
    as_kind = "" if "text" in kinds else f" (benchmark.answers={kinds[0]})"
    if not as_kind and choice.first:
        as_kind = ", counted from 1 as the columns are (benchmark.answers=index counts from 0)"
    raise choice.row.error(f"the answer {choice.said[: 2 * SHOWN]!r} is not among the options {listed}{as_kind}")


def _meant(choice: Choice, kind: str) -> str | None:
    """The option that an answer of this kind means; None if there is none."""
    said, options = choice.said, choice.options
    if kind == "text":
        return said if said in options else None
    if kind in FIRST:
        first = FIRST[kind]
        first = choice.first if first is None else first
        place = int(said) - first if said.isascii() and said.isdigit() and len(said) < 10 else -1
    else:
        place = ascii_uppercase.find(said.upper()) if len(said) == 1 else -1
    return options[place] if 0 <= place < len(options) else None
