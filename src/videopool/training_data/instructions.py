"""Instruction files: LLaVA's layout and VideoChat2-IT's, which PLLaVA was trained on."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videopool.training_data.conversation import Conversation, ConversationError, Round
from videopool.training_data.source import Example, Source, TrainingDataError

# Tags that stand for a medium somewhere, as <image>, <Video></Video> or <video_frames>; others are text.
PLACEHOLDER = re.compile(r"</?[\w -]*(?:image|img|video|vid|clip|frame|audio|speech|media)[\w -]*/?>", re.IGNORECASE)
USER, ASSISTANT = ("human", "user"), ("gpt", "assistant")

# An entry, its number and the kind of its medium, to fields of an Example; raises ConversationError for a bad entry.
Parse = Callable[[dict[str, Any], int, str], dict[str, Any]]


def load_llava(path: str | Path, root: str | Path, name: str, weight: float = 1.0, limit: int | None = None) -> Source:
    """Read [{"id", "video" or "image", "conversations": [{"from", "value"}, ...]}].

    This is LLaVA's layout (arXiv 2304.08485), with videos as in Video-LLaVA (arXiv 2311.10122). "human" and "gpt" take
    turns; a "system" turn may come first. The first question holds one placeholder, <video> or <image>, which the
    layout's own place for the clip replaces.

    Args:
        path: the file.
        root: folder of the media.
        name, weight: see Source.
        limit: use the first entries only; None for all.

    Raises:
        TrainingDataError: the file cannot be used.
    """

    def parse(entry: dict[str, Any], number: int, kind: str) -> dict[str, Any]:
        # Ids of released files are not unique.
        return {"id": f"{number}/{entry.get('id', '')}", "conversation": _llava_conversation(entry, kind)}

    return _read(path, root, name, weight, limit, parse)


def load_videochat2(
    path: str | Path, root: str | Path, name: str, weight: float = 1.0, limit: int | None = None
) -> Source:
    """Read [{"video" or "image", "QA": [{"i", "q", "a"}, ...], "start", "end"}].

    This is the layout of VideoChat2-IT (arXiv 2311.17005). The first instruction "i" stands before the conversation,
    as in PLLaVA's training. An empty "q" asks for a caption. Arguments and errors as in load_llava().
    """

    def parse(entry: dict[str, Any], number: int, kind: str) -> dict[str, Any]:
        bounds = {field: _seconds(entry, field) for field in ("start", "end")}
        return {"id": str(number), **bounds, "conversation": _videochat2_conversation(entry)}

    return _read(path, root, name, weight, limit, parse)


def _read(path: str | Path, root: str | Path, name: str, weight: float, limit: int | None, parse: Parse) -> Source:
    where = f"training_data.sources.{name}"
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise TrainingDataError(f"{where}.limit={limit!r}: give a whole number of at least 1, or null")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingDataError(f"{where}: {path}: {reason}") from error
    if not isinstance(content, list):
        raise TrainingDataError(f"{where}: {path}: a list of entries is expected")
    examples, refused = [], []
    for number, entry in enumerate(content[:limit]):
        place = f"{path}, entry {number}"
        try:
            if not isinstance(entry, dict):
                raise ConversationError("an object is expected")
            kind, medium = _medium(entry)
            relative = os.path.normpath(medium)
            if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
                raise ConversationError(f"{medium!r} leads out of {root}")
            fields = parse(entry, number, kind)
            examples.append(Example(media=Path(root) / relative, name=medium, kind=kind, where=place, **fields))
        except ConversationError as error:
            refused.append(f"{place}: {error}")
    return Source(name, examples, refused, weight)


def _medium(entry: dict[str, Any]) -> tuple[str, str]:
    """Kind and name of an entry's one medium."""
    given = [(kind, entry[kind]) for kind in ("video", "image") if entry.get(kind) not in (None, "", [])]
    if not given:
        raise ConversationError("there is no medium: neither 'video' nor 'image' names a file")
    if len(given) > 1:
        raise ConversationError("it has both a 'video' and an 'image'; one medium is expected")
    kind, name = given[0]
    if isinstance(name, list):
        if len(name) > 1:
            raise ConversationError(f"{len(name)} of {kind!r}, but there is a place for one in a conversation")
        (name,) = name
    if not isinstance(name, str):
        raise ConversationError(f"the field {kind!r} must name a file, got {name!r}")
    return kind, name


def _text(entry: dict[str, Any], field: str) -> str:
    """A field's text, "" if there is none."""
    value = entry.get(field)
    if value is not None and not isinstance(value, str):
        raise ConversationError(f"the field {field!r} must be text, got {value!r}")
    return value or ""


def _seconds(entry: dict[str, Any], field: str) -> float | None:
    """A bound in seconds, if there is one."""
    value = entry.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConversationError(f"the field {field!r} must be a number of seconds, got {value!r}")
    return float(value)


def _round(question: str, answer: str) -> Round:
    if not answer.strip():
        raise ConversationError(f"the question {question[:60]!r} has an empty answer")
    return Round(question, answer)


def _llava_conversation(entry: dict[str, Any], kind: str) -> Conversation:
    listed = entry.get("conversations")
    if not isinstance(listed, list) or not all(isinstance(turn, dict) for turn in listed):
        raise ConversationError("the field 'conversations' must be a list of turns")
    turns = [(str(turn.get("from")), _text(turn, "value")) for turn in listed]
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else ""
    if not turns or len(turns) % 2:
        raise ConversationError(f"{len(turns)} turns; questions and answers in turn are expected")
    rounds = []
    for (asker, question), (answerer, answer) in zip(turns[::2], turns[1::2], strict=True):
        if asker not in USER or answerer not in ASSISTANT:
            raise ConversationError(f"turns of {asker!r} and {answerer!r}; 'human' and 'gpt' in turn are expected")
        rounds.append(_round(question, answer))
    wanted = f"<{kind}>"
    for number, one in enumerate(rounds):
        tags = PLACEHOLDER.findall(one.question)
        if unknown := [tag for tag in tags if tag not in ("<image>", "<video>")]:
            raise ConversationError(f"{unknown[0]} in question {number} is no placeholder that is known")
        if tags and (number > 0 or len(tags) > 1):
            raise ConversationError(
                f"question {number} holds {', '.join(tags)}; one {wanted} is expected, in the first question"
            )
        if number == 0 and tags != [wanted]:
            tag = tags[0] if tags else "no placeholder"
            raise ConversationError(f"its medium is a {kind}, but the first question holds {tag}; {wanted} is expected")
    rounds[0] = Round(rounds[0].question.replace(wanted, "").strip(), rounds[0].answer)
    return Conversation(rounds, f"{system.rstrip()} " if system.strip() else "")


def _videochat2_conversation(entry: dict[str, Any]) -> Conversation:
    listed = entry.get("QA")
    if not isinstance(listed, list) or not listed or not all(isinstance(row, dict) for row in listed):
        raise ConversationError("the field 'QA' must be a list of questions and answers")
    rounds = []
    for row in listed:
        rounds.append(_round(_text(row, "q"), _text(row, "a")))
        question = rounds[-1].question
        if tag := PLACEHOLDER.search(question):
            raise ConversationError(f"{tag.group()} in the question {question[:60]!r} is no placeholder that is known")
    instruction = _text(listed[0], "i")
    return Conversation(rounds, f"{instruction} " if instruction else "")
