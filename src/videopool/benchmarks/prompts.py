"""The text that a model reads for a question."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from string import ascii_uppercase

from videopool.benchmarks.errors import BenchmarkError

# The places that texts of a prompt hold, once each; {image} stands for the visual tokens.
PLACES = {
    "template": ("{image}", "{question}"),
    "multiple_choice": ("{question}", "{options}"),
    "option": ("{letter}", "{text}"),
    "open_ended": ("{question}",),
}


@dataclass(frozen=True)
class Prompt:
    """A conversation template. Raises ValueError if one of the PLACES is missing or stands twice."""

    template: str  # the conversation up to the answer
    multiple_choice: str  # a question with options
    option: str
    separator: str  # between two options
    answer_prefix: str  # start of the answer to a multiple-choice question, so that a letter comes next
    describe: str  # the question for samples without one
    open_ended: str = "{question}"  # a question without options
    open_answer_prefix: str = ""  # start of its answer
    trim: bool = False  # drop white space after the last option

    def __post_init__(self) -> None:
        for name, text in asdict(self).items():
            if name != "trim" and not isinstance(text, str):
                raise ValueError(f"prompt.{name}={text!r}: give a text")
        for name, places in PLACES.items():
            for place in places:
                if getattr(self, name).count(place) != 1:
                    raise ValueError(f"prompt.{name} must hold {place} exactly once")

    @property
    def answer_start(self) -> str:
        """The end of every multiple-choice prompt; a letter comes next."""
        return self.template.split("{question}")[1] + self.answer_prefix

    def pattern(self, options: bool) -> str:
        """The whole prompt with its places: {image}, {question} and, with options, {options}."""
        question = self.multiple_choice if options else self.open_ended
        return self.template.replace("{question}", question) + self.prefix(options)

    def prefix(self, options: bool) -> str:
        """The start of the answer that the prompt gives."""
        return self.answer_prefix if options else self.open_answer_prefix

    def hash(self, options: bool) -> str:
        """Twelve hexadecimal digits of the pattern and the form of its options."""
        parts = [self.pattern(options), *([self.option, self.separator, str(self.trim)] if options else [])]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def question_text(self, question: str, options: Sequence[str] = ()) -> str:
        """The question with its options, without the conversation around it.

        Raises BenchmarkError for more options than letters, which benchmarks accept for cloze alone.
        """
        if len(options) > len(ascii_uppercase):
            raise BenchmarkError(
                f"a question with {len(options)} options cannot be put with letters, of which there are "
                f"{len(ascii_uppercase)}: {question[:80]!r}"
            )
        lines = [
            self.option.replace("{letter}", letter).replace("{text}", option)
            for letter, option in zip(ascii_uppercase[: len(options)], options, strict=True)
        ]
        choices = self.separator.join(lines)
        # The question comes last, so that braces in it stay as they are.
        before, after = (self.multiple_choice if options else self.open_ended).split("{question}")
        if options:
            choices = choices.rstrip() if self.trim else choices
            before, after = (part.replace("{options}", choices) for part in (before, after))
        return before + question + after

    def text(self, question: str, options: Sequence[str] = (), image: str = "<image>") -> str:
        """The whole prompt; `image` stands for the visual tokens. Raises BenchmarkError as question_text does."""
        head, tail = (part.replace("{image}", image) for part in self.template.split("{question}"))
        return head + self.question_text(question, options) + tail + self.prefix(bool(options))
