"""Errors about training data."""


class ConversationError(ValueError):
    """A conversation that nothing can be learned from: why, in one line. Skip it and count it."""
