"""Instruction files in the layout of VideoChat2-IT (arXiv 2311.17005), which PLLaVA was trained on."""

from pathlib import Path
from typing import Any

from videopool.training_data.conversation import Conversation, Round
from videopool.training_data.entries import medium, placeholders, read_source, seconds, text_of
from videopool.training_data.errors import ConversationError
from videopool.training_data.source import Example, Source


def load_videochat2(
    path: str | Path, root: str | Path, name: str, weight: float = 1.0, limit: int | None = None
) -> Source:
    """Read [{"video" or "image", "QA": [{"i", "q", "a"}, ...], "start", "end"}].

    The first instruction "i" stands before the conversation, as in PLLaVA's training. An empty "q" asks for a caption.

    Args:
        path: the file.
        root: folder of the media.
        name: of the source, as in the configuration.
        weight: see Source.
        limit: the first so many entries; None for all.

    Raises:
        TrainingDataError: the file cannot be used.
    """

    def parse(entry: dict[str, Any], where: str) -> Example:
        kind, medium_name, media = medium(entry, root)
        bounds = seconds(entry, "start"), seconds(entry, "end")
        return Example(where.rsplit(" ", 1)[1], media, medium_name, kind, _conversation(entry), where, *bounds)

    return read_source(path, parse, name, weight, limit)


def _conversation(entry: dict[str, Any]) -> Conversation:
    listed = entry.get("QA")
    if not isinstance(listed, list) or not listed or not all(isinstance(said, dict) for said in listed):
        raise ConversationError("the field 'QA' must be a list of questions and answers")
    rounds = []
    for said in listed:
        question, answer = text_of(said.get("q"), "q"), text_of(said.get("a"), "a")
        if not answer.strip():
            raise ConversationError(f"the question {question[:60]!r} has an empty answer")
        if tag := next(placeholders(question), None):
            raise ConversationError(f"{tag} in the question {question[:60]!r} is no placeholder that is known")
        rounds.append(Round(question, answer))
    instruction = text_of(listed[0].get("i"), "i")
    return Conversation(rounds, f"{instruction} " if instruction else "")
