"""Locks of the operating system on open files. They end with the process that has them, however that ends."""

import fcntl
import sys
import time

PATIENCE = 0.5  # seconds for which a claim is tried again: somebody may just be looking
PAUSE = 0.01
_told = False


def claim(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file for this process until it is closed. False if another has it.

    A file system without locks grants every claim; the first time, a line says so.

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
    """Whether another process has claimed an open file. Looks do not hinder each other, and claims outlast them."""
    if not _lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB):
        return True
    release(descriptor)
    return False


def release(descriptor: int) -> None:
    """Give a lock back, if there is one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError:
        pass  # of a file system without locks


def _lock(descriptor: int, kind: int) -> bool:
    global _told
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if not _told:
            _told = True
            print(
                f"videopool: this file system has no locks ({error.strerror}): two processes may do the same work; "
                "run one at a time here, or give each its own study",
                file=sys.stderr,
            )
    return True
