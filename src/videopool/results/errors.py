"""Errors about results."""

from pathlib import Path

from videopool.errors import UserError


class ResultsError(UserError, RuntimeError):
    """Results that cannot be written, read or compared: one line, with what to do."""


class PointFailed(ResultsError):
    """A point that ran but may not be scored."""


class PointBusy(ResultsError):
    """Another process is working on the point.

    Args:
        folder: of the point.
        holder: who works on it.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder} is being worked on by {holder}")
        self.folder = folder
