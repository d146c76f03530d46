"""What readers of instruction files share: entries, their media, the placeholders in their texts."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from videopool.training_data.errors import ConversationError, TrainingDataError
from videopool.training_data.source import MEDIA, Example, Source

# Tags that stand for a medium somewhere, as <image>, <Video></Video> or <video_frames>; others are text.
PLACEHOLDER = re.compile(r"</?[\w -]*(?:image|img|video|vid|clip|frame|audio|speech|media)[\w -]*/?>", re.IGNORECASE)

Parse = Callable[[dict[str, Any], str], Example]


def read_source(path: str | Path, parse: Parse, name: str, weight: float, limit: int | None) -> Source:
    """The entries of a file, each to an example or to a line on why not.

    Args:
        path: JSON, a list of objects.
        parse: one entry and where it stands to an example; raises ConversationError for one that cannot be used.
        limit: the first so many entries; None for all.

    Raises:
        TrainingDataError: the file is missing or no such list, or nothing in it can be used, or the limit is none.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise TrainingDataError(
            f"training_data.sources.{name}.limit={limit!r}: give a whole number of at least 1, or null"
        )
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingDataError(f"training_data.sources.{name}: {path}: {reason}") from error
    if not isinstance(content, list):
        raise TrainingDataError(f"training_data.sources.{name}: {path}: a list of entries is expected")
    examples, refused = [], []
    for number, entry in enumerate(content[:limit]):
        where = f"{path}, entry {number}"
        try:
            if not isinstance(entry, dict):
                raise ConversationError("an object is expected")
            examples.append(parse(entry, where))
        except ConversationError as error:
            refused.append(f"{where}: {error}")
    return Source(name, examples, refused, weight)


def medium(entry: dict[str, Any], root: str | Path) -> tuple[str, str, Path]:
    """Kind, name and path of an entry's one medium.

    Raises:
        ConversationError: there is none, or more than one, or its name leads out of the folder.
    """
    given = [(kind, entry[kind]) for kind in MEDIA if entry.get(kind) not in (None, "", [])]
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
    relative = os.path.normpath(name)
    if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
        raise ConversationError(f"{name!r} leads out of {root}")
    return kind, name, Path(root) / relative


def placeholders(text: str) -> Iterator[str]:
    """Tags in a text that stand for media."""
    return (match.group() for match in PLACEHOLDER.finditer(text))


def text_of(value: object, field: str) -> str:
    """The value, if it is text; "" for none. Raises ConversationError naming the field."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConversationError(f"the field {field!r} must be text, got {value!r}")
    return value


def seconds(entry: dict[str, Any], field: str) -> float | None:
    """A bound in seconds, if there is one. Raises ConversationError naming the field."""
    value = entry.get(field)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return None if value is None else float(value)
    raise ConversationError(f"the field {field!r} must be a number of seconds, got {value!r}")
