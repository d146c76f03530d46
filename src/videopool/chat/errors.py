"""Errors about servers and their replies."""

from videopool.errors import UserError


class ChatError(UserError, ValueError):
    """A server that cannot be used as it is configured: one line, with what to do."""


class RequestFailed(Exception):
    """One request without a usable reply.

    Args:
        reason: one line.
        again: whether the same request may succeed later.
        wait: seconds that the server asked to wait, 0 if it did not.
    """

    def __init__(self, reason: str, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


class NoText(RequestFailed):
    """A reply that holds no text: the same request would have the same."""
