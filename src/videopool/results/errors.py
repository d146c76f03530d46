"""Errors about results."""


class ResultsError(RuntimeError):
    """Results that cannot be written, read or compared: one line, with what to do."""


class PointFailed(ResultsError):
    """A point that ran but may not be scored."""


class PointBusy(ResultsError):
    """Another process is working on the point."""
