"""Errors about configurations, and the end that the user asked for."""

from videopool.errors import UserError


class ConfigError(UserError, ValueError):
    """A configuration that says something impossible."""


class Stopped(BaseException):
    """The user asked to stop; what was in hand is written. Passes through every `except Exception`."""
