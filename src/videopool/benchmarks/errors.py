"""Errors about benchmarks."""

from videopool.errors import UserError


class BenchmarkError(UserError, ValueError):
    """A benchmark that cannot be read or used: what, where, what to do, in one line."""
