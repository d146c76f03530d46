"""ModelError, and what its messages are made of."""

from collections.abc import Sequence
from typing import Any

from videopool.errors import UserError

LISTED = 4  # names in one message


class ModelError(UserError, ValueError):
    """A model that cannot be loaded or used as configured: one line, with what to do."""


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def is_number(value: Any) -> bool:
    """Whether a setting is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
