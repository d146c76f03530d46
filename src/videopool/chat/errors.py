"""Errors about servers and their replies."""

import math

from videopool.errors import UserError


class ChatError(UserError, ValueError):
    """A server or judge that cannot be used as configured: one line, with what to do."""


class RequestFailed(Exception):
    """One request without a usable reply, for a reason in one line.

    `again`: whether the same request may succeed later; `wait`: seconds that the server asks to wait, or 0.
    """

    def __init__(self, reason: str, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again, self.wait = again, wait


class NoText(RequestFailed):
    """A reply without text; the same request would get the same reply."""


def check_number(key: str, value: object, low: float, whole: bool = False) -> None:
    """Raises ChatError unless a setting is a finite number of at least `low`, with `whole` an integer."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not low <= number < math.inf or (whole and not isinstance(value, int)):
        kind = "a whole number" if whole else "a number"
        raise ChatError(f"{key} must be {kind} of at least {low:g}, got {value!r}")
