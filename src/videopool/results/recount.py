"""A point's metrics against its own records."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videopool.results.metrics import metrics_of
from videopool.results.point import METRICS, manifest_part, part_of, read_json
from videopool.results.study import point_records

NEAR = 1e-9  # relative: what additions in another order change
BY_RECORD = ("tasks", "answer_words", "token_f1")  # metrics that need nothing but the records


def recounted(folder: Path) -> dict[str, object]:
    """The metrics that a point's records give (metrics_of); of points of earlier versions, those of single tasks.

    Earlier manifests do not say which tasks make the score.
    """
    records, roles = point_records(folder), manifest_part(folder, "tasks")
    headline = set(roles.get("headline", ()))
    parts = (part_of(roles, "groups"), headline.__contains__, part_of(roles, "axes"), part_of(roles, "weights"))
    metrics = metrics_of(records, *parts)
    return metrics if roles else {name: metrics[name] for name in BY_RECORD}


def unlike(told: Any, found: Any, name: str = "") -> Iterator[tuple[str, Any, Any] | None]:
    """For each number that was found again: None if it was told so, or its name, what was told and what was found."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            inner = told.get(key) if isinstance(told, Mapping) else None
            yield from unlike(inner, value, f"{name}.{key}" if name else str(key))
    elif isinstance(found, Sequence) and not isinstance(found, str):
        same = isinstance(told, Sequence) and len(told) == len(found)
        for number, value in enumerate(found):
            yield from unlike(told[number] if same else None, value, f"{name}[{number}]")
    else:
        yield None if alike(told, found) else (name, told, found)


def alike(told: Any, found: Any) -> bool:
    """Whether two numbers are equal but for rounding, or two other values equal."""
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (told, found))
    return math.isclose(told, found, rel_tol=NEAR, abs_tol=NEAR) if numbers else bool(told == found)


def recount(folder: Path) -> tuple[int, list[str]]:
    """How many numbers of a point's metrics.json its records give again, and a line for each that differs."""
    told = read_json(folder / METRICS)
    if told is None:
        return 0, [f"{folder.name}: there is no whole {METRICS}"]
    pairs = list(unlike(told, recounted(folder)))
    faults = [f"{folder.name}: {METRICS} says {one[0]} = {one[1]}, its records give {one[2]}" for one in pairs if one]
    return len(pairs), faults
