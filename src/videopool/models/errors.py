"""Errors about models."""

from videopool.errors import UserError


class ModelError(UserError, ValueError):
    """A model that cannot be loaded or used as asked: one line, with what to do."""
