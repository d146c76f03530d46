"""Locks: held on open files by a process. They end with it, however it ends."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from videopool.notes import note

PATIENCE = 0.5  # seconds for which a claim is tried again: another process may just be looking
PAUSE = 0.01


def claim(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file for this process until it is closed. False if another process holds it.

    A file system without locks grants every claim; the first time, a line on stderr says so.

    Args:
        wait: until it is free, however long that takes.
    """
    if wait:
        return _lock(descriptor, fcntl.LOCK_EX)
    deadline = time.monotonic() + PATIENCE
    while not _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True


def is_claimed(descriptor: int) -> bool:
    """Whether another process has claimed an open file. Looking never refuses a claim or another look."""
    if not _lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB):
        return True
    release(descriptor)
    return False


def release(descriptor: int) -> None:
    """Give a lock back, if there is one."""
    with contextlib.suppress(OSError):  # of a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock of a file and hold it. Creates the file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        claim(file.fileno(), wait=True)
        try:
            yield
        finally:
            release(file.fileno())  # a fork, which shares it, may live on


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        line = f"this file system has no locks ({error.strerror}): two processes may do the same work; "
        note(f"{line}run one at a time here, or give each its own study", once=True, every_rank=True)
    return True
