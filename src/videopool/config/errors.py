"""Errors about configurations, and the stop that the user asked for."""

from videopool.errors import UserError


class ConfigError(UserError, ValueError):
    """An impossible setting."""


class Stopped(BaseException):
    """The user asked to stop; work in progress is saved. No `except Exception` catches it."""
