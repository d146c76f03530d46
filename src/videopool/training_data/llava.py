"""Instruction files in LLaVA's layout (arXiv 2304.08485), with videos as Video-LLaVA has them (arXiv 2311.10122)."""

from pathlib import Path
from typing import Any

from videopool.training_data.conversation import Conversation, Round
from videopool.training_data.entries import medium, placeholders, read_source, text_of
from videopool.training_data.errors import ConversationError
from videopool.training_data.source import Example, Source

USER, ASSISTANT = ("human", "user"), ("gpt", "assistant")


def load_llava(path: str | Path, root: str | Path, name: str, weight: float = 1.0, limit: int | None = None) -> Source:
    """Read [{"id", "video" or "image", "conversations": [{"from", "value"}, ...]}].

    Turns are of "human" and "gpt" in turn, a "system" turn may stand before them. The first question holds one
    placeholder, <video> or <image>, which the layout's own place for the clip then stands for.

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
        conversation = _conversation(entry, kind)
        number = where.rsplit(" ", 1)[1]  # ids of released files are not unique
        return Example(f"{number}/{entry.get('id', '')}", media, medium_name, kind, conversation, where)

    return read_source(path, parse, name, weight, limit)


def _conversation(entry: dict[str, Any], kind: str) -> Conversation:
    turns = entry.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ConversationError("the field 'conversations' must be a list of turns")
    said = [(str(turn.get("from")), text_of(turn.get("value"), "value")) for turn in turns]
    system = said.pop(0)[1] if said and said[0][0] == "system" else ""
    if not said or len(said) % 2:
        raise ConversationError(f"{len(said)} turns; questions and answers in turn are expected")
    rounds = []
    for (asker, question), (answerer, answer) in zip(said[::2], said[1::2], strict=True):
        if asker not in USER or answerer not in ASSISTANT:
            raise ConversationError(f"turns of {asker!r} and {answerer!r}; 'human' and 'gpt' in turn are expected")
        if not answer.strip():
            raise ConversationError(f"the question {question[:60]!r} has an empty answer")
        rounds.append(Round(question, answer))
    wanted = f"<{kind}>"
    for number, one in enumerate(rounds):
        found = list(placeholders(one.question))
        unknown = [tag for tag in found if tag not in ("<image>", "<video>")]
        if unknown:
            raise ConversationError(f"{unknown[0]} in question {number} is no placeholder that is known")
        if found and (number > 0 or len(found) > 1):
            raise ConversationError(
                f"question {number} holds {', '.join(found)}; one {wanted} is expected, in the first question"
            )
        if number == 0 and found != [wanted]:
            told = f"holds {found[0]}" if found else "holds no placeholder"
            raise ConversationError(f"its medium is a {kind}, but the first question {told}; {wanted} is expected")
    rounds[0] = Round(rounds[0].question.replace(wanted, "").strip(), rounds[0].answer)
    return Conversation(rounds, f"{system.rstrip()} " if system.strip() else "")
