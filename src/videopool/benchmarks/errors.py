"""Errors about benchmarks."""


class BenchmarkError(ValueError):
    """A benchmark that cannot be read or used: what, where, what to do, in one line."""
