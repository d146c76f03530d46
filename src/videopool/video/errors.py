"""Errors about clips."""

from pathlib import Path

from videopool.errors import UserError


def printable(name: str) -> str:
    """A file's name as text that can be printed and written: what is no UTF-8 in it as \\udc and two digits."""
    return name.encode("utf-8", "backslashreplace").decode()


class UnreadableClipError(UserError):
    """A clip that cannot be read as asked: missing, empty, damaged, without a video stream.

    Attributes:
        path: the file or folder.
        reason: one line, in the words of the library that failed where there are any.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = printable(str(path))
        self.reason = " ".join(printable(str(reason)).split())
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)


class ClipBoundsError(UnreadableClipError):
    """Start and end of a sample lie outside its clip, or in the wrong order."""


class FrameSamplingError(UserError, ValueError):
    """A sampler's settings make no sense."""
