"""Errors about norms."""


class NormsError(ValueError):
    """Norms that cannot be measured or read as asked: one line, with what to do."""
