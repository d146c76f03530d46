"""Notes: lines on stderr for the user."""

from collections.abc import Sequence

from videopool.runtime import log
from videopool.runtime.ranks import rank_of_process

LISTED = 10
_noted: set[str] = set()


def note(line: str, once: bool = False, every_rank: bool = False) -> None:
    """Print a line to stderr; of several processes of one run, only the first does.

    Args:
        once: not again in this process.
        every_rank: the line is about this process; each prints its own.
    """
    if (every_rank or rank_of_process() == 0) and not (once and line in _noted):
        _noted.add(line)
        log.warn(line)


def indented(lines: Sequence[str]) -> str:
    """The first lines, indented, each after a line break, and the number of further ones."""
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "".join(f"\n    {line}" for line in [*lines[:LISTED], *more])


def note_list(lines: Sequence[str]) -> None:
    """Print the first lines to stderr, indented, and the number of further ones."""
    if lines:
        log.fail(indented(lines).removeprefix("\n"))
