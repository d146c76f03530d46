"""How a question becomes the text that a model reads."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from videopool.benchmarks.errors import BenchmarkError


@dataclass(frozen=True)
class Prompt:
    """A conversation template with one place for the visual tokens.

    Args:
        template: the conversation up to the answer; holds "{image}" and "{question}" once each.
        multiple_choice: how a question with options is put; holds "{question}" and "{options}".
        option: one option; holds "{letter}" and "{text}".
        separator: between two options.
        answer_prefix: begins the answer to a multiple-choice question, so that a letter comes next.
        describe: the request for a description, where a clip has no question.
        open_ended: how a question without options is put; holds "{question}".
        open_answer_prefix: begins the answer to a question without options.
        trim: drop white space behind the last option.
    """

    template: str
    multiple_choice: str
    option: str
    separator: str
    answer_prefix: str
    describe: str
    open_ended: str = "{question}"
    open_answer_prefix: str = ""
    trim: bool = False

    def __post_init__(self) -> None:
        for name, places in {
            "template": ("{image}", "{question}"),
            "multiple_choice": ("{question}", "{options}"),
            "option": ("{letter}", "{text}"),
            "open_ended": ("{question}",),
        }.items():
            for place in places:
                if getattr(self, name).count(place) != 1:
                    raise ValueError(f"prompt.{name} must hold {place} exactly once")

    @property
    def answer_start(self) -> str:
        """The end of every multiple-choice prompt, behind which a letter comes."""
        return self.template.split("{question}")[1] + self.answer_prefix

    def pattern(self, options: bool) -> str:
        """The whole prompt with places for what samples fill in: {image}, {question} and, with options, {options}."""
        said = self.multiple_choice if options else self.open_ended
        return self.template.replace("{question}", said) + (self.answer_prefix if options else self.open_answer_prefix)

    def hash(self, options: bool) -> str:
        """Twelve hexadecimal digits that name the pattern and how options are listed in it."""
        told = [self.pattern(options), *([self.option, self.separator, str(self.trim)] if options else [])]
        return hashlib.sha256("\0".join(told).encode()).hexdigest()[:12]

    def question_text(self, question: str, options: Sequence[str] = ()) -> str:
        """What is asked, without the conversation around it.

        Raises:
            BenchmarkError: more options than letters, which benchmarks accept for cloze alone.
        """
        if len(options) > len(ascii_uppercase):
            raise BenchmarkError(
                f"a question with {len(options)} options cannot be put with letters, of which there are "
                f"{len(ascii_uppercase)}: {question[:80]!r}"
            )
        if options:
            listed = self.separator.join(
                self.option.replace("{letter}", letter).replace("{text}", option)
                for letter, option in zip(ascii_uppercase[: len(options)], options, strict=True)
            )
            if self.trim:
                listed = listed.rstrip()
            before, after = self.multiple_choice.split("{question}")
            return before.replace("{options}", listed) + question + after.replace("{options}", listed)
        before, after = self.open_ended.split("{question}")
        return before + question + after

    def text(self, question: str, options: Sequence[str] = (), image: str = "<image>") -> str:
        """The whole prompt. image: the text that stands for the visual tokens. Raises as question_text does."""
        asked = self.question_text(question, options)
        # The question is put in last, so that braces in it stay as they are.
        head, tail = self.template.split("{question}")
        text = head.replace("{image}", image) + asked + tail.replace("{image}", image)
        return text + (self.answer_prefix if options else self.open_answer_prefix)
