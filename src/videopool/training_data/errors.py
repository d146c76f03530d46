"""Errors about training data."""

from videopool.errors import UserError


class ConversationError(ValueError):
    """A conversation that nothing can be learned from: why, in one line. Skip it and count it."""


class TrainingDataError(UserError, ValueError):
    """Training data that cannot be used: which file or source, and what to do, in one line."""
