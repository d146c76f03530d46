"""The JSON objects in a model's reply, whatever surrounds them."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

# An object's keys, in lower case, and values; a key may stand twice.
Pairs = tuple[tuple[str, Any], ...]

MOST = 64  # places where an object may begin
FENCE = re.compile(r"\A\s*```\w*\s*\n?(.*?)\n?\s*```\s*\Z", re.DOTALL)
# Strings of either kind, and Python's forms that are not JSON.
TOKEN = re.compile(
    r"(?P<double>\"(?:[^\"\\]|\\.)*\")|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<comma>,)(?=\s*[}\]])"
    r"|\b(?P<word>True|False|None)\b",
    re.DOTALL,
)
TOKEN_OR_BRACE = re.compile(rf"{TOKEN.pattern}|[{{}}]", re.DOTALL)
JSON_WORDS = {"True": "true", "False": "false", "None": "null"}


def objects_in(text: str, names: Sequence[str], alone: bool = False) -> list[Pairs]:
    """The outermost objects of a text that have any of some keys, as JSON or in Python's form.

    Python's form has single quotes, True, False, None, and a comma after the last value.

    Args:
        alone: only count an object that is the whole text, or a whole code fence.
    """
    if alone and (match := FENCE.match(text)):
        text = match[1]
    found: list[Pairs] = []
    start = text.find("{")
    for _ in range(MOST):
        if start < 0:
            break
        end = _closing(text, start)
        try:
            # Valid JSON has no match outside of its strings, which stay as they are.
            content = json.loads(TOKEN.sub(_as_json, text[start:end]), object_pairs_hook=_pairs)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if alone and text[:start].strip() + text[end:].strip():
            return []
        found += _flat(content, names)
        start = text.find("{", end)
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    return tuple((key.strip().casefold(), value) for key, value in pairs)


def _closing(text: str, start: int) -> int:
    """The end of the object that begins at `start`; `start` if it never ends. Braces in strings do not count."""
    depth = 0
    for match in TOKEN_OR_BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return match.end()
    return start


def _as_json(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return json.dumps(re.sub(r"\\(['\"\\])", r"\1", match["single"]), ensure_ascii=True)
    if match["word"]:
        return JSON_WORDS[match["word"]]
    return match["double"] or ""


def _flat(content: object, names: Sequence[str]) -> Iterator[Pairs]:
    """The outermost objects (tuples of pairs) with any of the keys, within objects and lists."""
    if isinstance(content, tuple):
        if any(key in names for key, _ in content):
            yield content
            return
        content = [value for _, value in content]
    if isinstance(content, list):
        for value in content:
            yield from _flat(value, names)
