"""Errors about models."""


class ModelError(ValueError):
    """A model that cannot be loaded or used as asked: one line, with what to do."""
