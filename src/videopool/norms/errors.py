"""Errors about norms."""

from videopool.errors import UserError


class NormsError(UserError, ValueError):
    """Norms that cannot be measured or read as asked: one line, with what to do."""
