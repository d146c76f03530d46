"""Standard streams that outlive their terminal."""

import errno
import io
import sys
from typing import Any

GONE = (errno.EIO, errno.EPIPE)  # of a terminal, of a pipe


class EnduringFile(io.FileIO):
    """A stream that drops what it cannot write, because the terminal is closed or the reader of a pipe has ended."""

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return len(memoryview(data).cast("B"))


def endure() -> None:
    """Keep a closed terminal or pipe from ending the work: what is printed is lost, and the log has it."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            file = io.BufferedWriter(EnduringFile(stream.fileno(), "w", closefd=False))
            lines, at_once = stream.line_buffering, stream.write_through
            setattr(sys, name, io.TextIOWrapper(file, stream.encoding, stream.errors, None, lines, at_once))
