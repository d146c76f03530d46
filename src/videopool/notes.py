"""Notes: lines on stderr for the user."""

from collections.abc import Sequence

from videopool.runtime import log
from videopool.runtime.ranks import rank_of_process

_noted: set[str] = set()


def note(line: str, once: bool = False, every_rank: bool = False) -> None:
    """Print a line to stderr, if there is one; of several processes of one run, only the first does.

    Args:
        once: not again in this process.
        every_rank: the line is about this process; each prints its own.
    """
    if line and (every_rank or rank_of_process() == 0) and not (once and line in _noted):
        _noted.add(line)
        log.warn(line)


def note_list(lines: Sequence[str]) -> None:
    """Print the first lines to stderr, indented, and the number of further ones."""
    if lines:
        log.fail(log.indented(lines).removeprefix("\n"))
