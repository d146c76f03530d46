"""The headline of a study: the pair of points that its file in experiments/ names.

    # Headline: (T,6,6) minus none at 16 frames
    # Headline: none at 32 frames minus none at 4
    # Headline: encoder minus projector for (T,6,6) at 8 frames

Each side names settings of a point as tables do: its pooling, its stage, its model and so on.
"""

import re
from typing import Any

import pandas as pd

from videopool.results.study import rows_of

FIRST_CLAUSE = re.compile(r"[;:.]|,(?![^(]*\))|, and |\bon the\b")
FRAMES = re.compile(r"\b(?:at|of|with)\s+(\d+)(?:\s+frames?)?\b")
SHAPE = re.compile(r"\(?\b(T|\d+)\s*[,x\u00d7]\s*(T|\d+)(?:\s*[,x\u00d7]\s*(\d+))?\)?")
NAMES = (
    "model", "benchmark", "split", "stage", "positions", "layout", "pruning", "judge", "prompt", "seed", "lora_alpha",
    "trained_pooling", "setting",
)  # fmt: skip


def headline_pair(headline: str, complete: pd.DataFrame) -> tuple[str, str] | None:
    """Names of the two complete points of a headline; None if it names no two.

    Of several that fit, the two that are alike in most other settings, first in the table.
    """
    left, minus, right = FIRST_CLAUSE.split(headline.strip(), maxsplit=1)[0].partition(" minus ")
    if not minus:
        return None
    right, _, shared = right.partition(" for ")
    frames = FRAMES.findall(f"{right} {shared}") or FRAMES.findall(headline)
    sides = []
    for side in (f"{left} {shared}", f"{right} {shared}"):
        own = FRAMES.findall(side) or frames
        sides.append(_fitting(_words(FRAMES.sub(" ", side)), int(own[0]) if own else None, complete))
    pairs = [(a, b) for a in sides[0] for b in sides[1] if a["point"] != b["point"]]
    unlike = [sum(str(a.get(name)) != str(b.get(name)) for name in NAMES) for a, b in pairs]
    if not pairs:
        return None
    first, second = pairs[unlike.index(min(unlike))]
    return str(first["point"]), str(second["point"])


def _words(text: str) -> set[str]:
    """The words of one side, with shapes as labels have them: (T,6,6) is Tx6x6, 6 x 6 is 6x6."""
    shaped = SHAPE.sub(lambda found: "x".join(filter(None, found.groups())), text)
    return {word.strip("(),").lower() for word in shaped.split()} - {""}


def _fitting(words: set[str], frames: int | None, complete: pd.DataFrame) -> list[dict[Any, Any]]:
    """The points that have all the words, with the fewest other words in the pooling's label."""
    rows = []
    for row in rows_of(complete):
        label = set(str(row["pooling"]).lower().split())
        label |= {word.partition("x")[2] for word in label if word.count("x") == 2}  # Tx6x6 is a 6x6
        known = label | {str(row[name]).lower() for name in NAMES if not pd.isna(row.get(name))}
        if words and words <= known and frames in (None, row["frames"]):
            rows.append((len(label - words), row))
    least = min((more for more, _ in rows), default=0)
    return [row for more, row in rows if more == least]
