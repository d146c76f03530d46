"""Errors about results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videopool.errors import UserError


class ResultsError(UserError, RuntimeError):
    """Results that cannot be written, read or compared: one line, with what to do."""


class PointFailed(ResultsError):
    """A point ran but may not be scored."""


class PointBusy(ResultsError):
    """Another process, the holder, is working on the point in a folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder} is being worked on by {holder}")
        self.folder = folder


@contextmanager
def writing(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turns an OSError, and these errors of the writing library, into a ResultsError that names the path."""
    kinds: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except ResultsError:
        raise
    except kinds as error:
        raise ResultsError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
