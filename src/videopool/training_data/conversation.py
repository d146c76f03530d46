"""Instruction conversations as token ids and labels; only answers are learned.

The layout follows PLLaVA's training (arXiv 2404.16994; dataset/it_dataset.py, tasks/train): the text is split into
pieces at its turns, each piece is tokenised alone, and the labels are the ids of the answers, closing token included.
docs/reference_differences.md lists the differences.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

IGNORED = -100


class ConversationError(ValueError):
    """Why nothing can be learned from a conversation, in one line. Skip the conversation and count it."""


@dataclass(frozen=True)
class Round:
    """One question and its answer. A caption is a round without a question."""

    question: str
    answer: str
    given: str = ""  # start of the answer in the prompt (evaluation's `answer_prefix`); no loss is taken on it


@dataclass(frozen=True)
class Conversation:
    """A conversation about one clip or image.

    Independent rounds are conversations of their own, which do not see each other. They are read together, because
    they share their prefix.
    """

    rounds: Sequence[Round]  # in their order, at least one
    system: str = ""  # text before everything else, with the data set's instruction if it has one
    message: str = ""  # describes the clip, as in "The video contains 4 frames sampled at ... seconds."
    independent: bool = False


@dataclass(frozen=True)
class ConversationLayout:
    """How a conversation is written out."""

    user: str = "USER:"  # begins a question
    assistant: str = "ASSISTANT:"  # begins an answer
    user_closing: str = "</s>"  # ends a question
    assistant_closing: str = "</s>"  # ends an answer
    clip: str = "<image>"  # stands for the visual tokens; one token of the tokenizer
    around: tuple[str, str] = ("", "")  # what a model writes before and behind the clip
    own_turn: bool = True  # the clip has a turn before the first question's; otherwise they share one


@dataclass(frozen=True)
class EncodedConversation:
    """Token ids and labels of equal length; a label is the id where it is learned, IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]
    lost: int = 0  # tokens cut off at the end
    # Of independent rounds: each token's round, from 1; 0 up to the clip. None: tokens see all tokens before them.
    rounds: list[int] | None = None

    @property
    def learned(self) -> int:
        """Number of labels with a loss; nothing could predict the first token."""
        return sum(label != IGNORED for label in self.labels[1:])

    def padded(self, length: int, pad_id: int) -> tuple[list[int], list[int], list[int]]:
        """Input ids, labels and attention mask, padded on the right. Raises ValueError for a longer conversation."""
        missing = length - len(self.input_ids)
        if missing < 0:
            raise ValueError(f"{len(self.input_ids)} tokens do not fit into {length}")
        mask = [1] * len(self.input_ids) + [0] * missing
        return self.input_ids + [pad_id] * missing, self.labels + [IGNORED] * missing, mask

    def padded_rounds(self, length: int) -> list[int]:
        """The round of each token, padded on the right; all 0 without independent rounds."""
        return (self.rounds or []) + [0] * (length - len(self.rounds or []))


def conversation_pieces(conversation: Conversation, layout: ConversationLayout) -> list[tuple[str, bool]]:
    """The text in pieces that are tokenised alone, and whether each is learned.

    The name of a turn within a question or an answer is plain text.
    """
    clip = f"{layout.around[0]}{layout.clip}{layout.around[1]}{conversation.message.rstrip()}"
    clip += " " if layout.own_turn else f"\n{conversation.rounds[0].question}{layout.user_closing}"
    pieces = [(conversation.system, False), (layout.user, False), (clip, False)]
    for number, one in enumerate(conversation.rounds):
        # The first question may stand in the clip's turn; a round without a question has no user turn.
        if one.question.strip() and (layout.own_turn or number > 0):
            pieces += [(layout.user, False), (one.question + layout.user_closing, False)]
        pieces += [(layout.assistant + one.given, False), (one.answer + layout.assistant_closing, True)]
    return pieces


def encode_conversation(
    conversation: Conversation, tokenizer: Any, max_length: int, layout: ConversationLayout | None = None
) -> EncodedConversation:
    """Token ids and labels, cut at max_length; the clip counts as one token.

    The tokenizer, of transformers, adds its beginning-of-text token before the first piece only.

    Raises:
        ConversationError: there is no round or an empty answer, a question, an answer or the message holds one of
            the tokenizer's special tokens, or the cut leaves no clip or no token of an answer.
        ValueError: the layout's clip is not a token of the tokenizer.
    """
    layout = layout or ConversationLayout()
    clip_id = tokenizer.convert_tokens_to_ids(layout.clip)
    if clip_id is None or clip_id == tokenizer.unk_token_id:
        raise ValueError(f"{layout.clip} is not a token of the tokenizer")
    _check(conversation, tokenizer)
    if conversation.independent:
        return _encode_rounds(conversation, tokenizer, max_length, layout, clip_id)
    input_ids: list[int] = []
    labels: list[int] = []
    pieces, rounds = conversation_pieces(conversation, layout), iter(conversation.rounds)
    for number, (text, learned) in enumerate(pieces):
        if learned and next(rounds).given:
            ids = _continued(tokenizer, pieces[number - 1][0], text)
        else:
            ids = tokenizer(text, add_special_tokens=number == 0).input_ids
        input_ids += ids
        labels += ids if learned else [IGNORED] * len(ids)
    lost = max(0, len(input_ids) - max_length)
    input_ids, labels = input_ids[:max_length], labels[:max_length]
    if (clips := input_ids.count(clip_id)) != 1:
        raise ConversationError(f"max_length={max_length} holds {layout.clip} {clips} times, not once")
    if all(label == IGNORED for label in labels):
        raise ConversationError(f"max_length={max_length} leaves nothing of the answers")
    return EncodedConversation(input_ids, labels, lost)


def _continued(tokenizer: Any, before: str, text: str) -> list[int]:
    """Ids of a text directly after another; alone it may have others, as "A" after " (" is no new word.

    Raises ConversationError if the two share a token, so that the second has no first token of its own.
    """
    given = tokenizer(before, add_special_tokens=False).input_ids
    both = tokenizer(before + text, add_special_tokens=False).input_ids
    if both[: len(given)] != given:
        raise ConversationError(f"{before!r} and the answer {text[:40]!r} after it share a token")
    return list(both[len(given) :])


def _encode_rounds(
    conversation: Conversation, tokenizer: Any, max_length: int, layout: ConversationLayout, clip_id: int
) -> EncodedConversation:
    """Independent rounds after their shared prefix. Rounds that do not fit are left out whole, but the first is cut."""
    alone = [replace(conversation, rounds=[one], independent=False) for one in conversation.rounds]
    encoded = [encode_conversation(alone[0], tokenizer, max_length, layout)]
    encoded += [encode_conversation(one, tokenizer, sys.maxsize, layout) for one in alone[1:]]
    shared = encoded[0].input_ids.index(clip_id) + 1
    input_ids, labels = encoded[0].input_ids[:shared], [IGNORED] * shared
    rounds, lost = [0] * shared, encoded[0].lost
    for number, one in enumerate(encoded, start=1):
        size = len(one.input_ids) - shared
        if len(input_ids) + size > max_length:
            lost += sum(len(other.input_ids) - shared for other in encoded[number - 1 :])
            break
        input_ids += one.input_ids[shared:]
        labels += one.labels[shared:]
        rounds += [number] * size
    return EncodedConversation(input_ids, labels, lost, rounds)


def _check(conversation: Conversation, tokenizer: Any) -> None:
    if not conversation.rounds:
        raise ConversationError("the conversation has no round")
    texts = [conversation.message]
    for one in conversation.rounds:
        if not one.answer.strip():
            raise ConversationError(f"the question {one.question!r} has an empty answer")
        texts += [one.question, one.answer, one.given]
    for token in sorted(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special):
        for text in texts:
            if token in text:
                raise ConversationError(f"the special token {token!r} stands in the text {text[:60]!r}")
