"""The JSON objects in a model's reply, whatever stands around them."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

# An object's keys, in lower case, and values: a key may stand twice.
Pairs = tuple[tuple[str, Any], ...]

MOST = 64  # objects that are looked for
THOUGHTS = r"(?:think|thinking|thought|reasoning)"
FENCE = re.compile(r"\A\s*```\w*\s*\n?(.*?)\n?\s*```\s*\Z", re.DOTALL)
# Strings of either kind, and what Python writes otherwise than JSON.
TOKEN = re.compile(
    r"(?P<double>\"(?:[^\"\\]|\\.)*\")|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<comma>,)(?=\s*[}\]])"
    r"|\b(?P<word>True|False|None)\b",
    re.DOTALL,
)
JSON_WORDS = {"True": "true", "False": "false", "None": "null"}


def answer_of(text: str) -> str:
    """A reply without the thoughts in front of it; "" if it ends within them."""
    text = re.sub(rf"<({THOUGHTS})>.*?</\1>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.split(rf"</{THOUGHTS}>", text, flags=re.IGNORECASE)[-1]
    return re.sub(rf"<{THOUGHTS}>.*\Z", "", text, flags=re.DOTALL | re.IGNORECASE)


def objects_in(text: str, names: Sequence[str], alone: bool = False) -> list[Pairs]:
    """The outermost objects of a text that have any of some keys.

    Python's way to write them (single quotes, True, a comma behind the last value) is understood.

    Args:
        alone: only an object that is the whole text, or all of a code fence, counts.
    """
    if alone and (match := FENCE.match(text)):
        text = match[1]
    found: list[Pairs] = []
    place = text.find("{")
    for _ in range(MOST):
        if place < 0:
            break
        decoded = _decoded(text, place)
        if decoded is None:
            place = text.find("{", place + 1)
            continue
        content, end = decoded
        if alone and text[:place].strip() + text[end:].strip():
            return []
        found += _flat(content, names)
        place = text.find("{", end)
    return found


class _Object(tuple[tuple[str, Any], ...]):
    """The pairs of one object."""


def _decoded(text: str, start: int) -> tuple[object, int] | None:
    """The object that begins at a place, and where it ends; None if there is none."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    try:
        return decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    end = _closing(text, start)
    if end is None:
        return None
    try:
        return json.loads(TOKEN.sub(_as_json, text[start:end]), object_pairs_hook=_object), end
    except (ValueError, RecursionError):
        return None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    return _Object((key.strip().casefold(), value) for key, value in pairs)


def _closing(text: str, start: int) -> int | None:
    """Where the bracket that opens at a place is closed, outside of strings."""
    depth = 0
    for match in re.finditer(rf"{TOKEN.pattern}|[{{}}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return start + match.end()
    return None


def _as_json(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return json.dumps(re.sub(r"\\(['\"\\])", r"\1", match["single"]), ensure_ascii=True)
    if match["word"]:
        return JSON_WORDS[match["word"]]
    return match["double"] or ""


def _flat(content: object, names: Sequence[str]) -> Iterator[Pairs]:
    if isinstance(content, _Object):
        if any(key in names for key, _ in content):
            yield content
            return
        content = [value for _, value in content]
    if isinstance(content, list):
        for value in content:
            yield from _flat(value, names)
