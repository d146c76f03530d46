"""The size limit of a store on disk: what has not been used for longest goes first."""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videopool.features.segment import DAMAGED, SUFFIX
from videopool.locks import locked

LOCK = "lock"
RESCAN = 16  # the folder is measured anew after writing this fraction of the limit: other processes write too
LOW_WATER = 0.9  # of the limit, to which old segments are removed once it is reached
RESERVE_BYTES = 1 << 28  # left free on the file system, for results


@dataclass(frozen=True)
class StoredFile:
    """A segment on disk, or a damaged one.

    Attributes:
        path: of the file.
        size: bytes.
        used: time of last use in nanoseconds.
    """

    path: Path
    size: int
    used: int


def stored_files(root: Path) -> Iterator[StoredFile]:
    """All segments below a folder, damaged ones too. Files that vanish meanwhile are left out."""
    folders = [root]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.name.endswith((SUFFIX, DAMAGED)):
                        stat = entry.stat()
                        yield StoredFile(Path(entry.path), stat.st_size, stat.st_mtime_ns)


def evict(root: Path, target: float) -> list[StoredFile]:
    """Remove damaged files, then the segments that were used least recently, down to a number of bytes.

    A segment that some process has mapped stays readable there.

    Returns:
        What was removed.
    """
    with locked(root / LOCK):
        return _evict(root, target)[0]


def _evict(root: Path, target: float) -> tuple[list[StoredFile], int]:
    files = sorted(stored_files(root), key=lambda file: (file.path.suffix != DAMAGED, file.used))
    total = sum(file.size for file in files)
    removed = []
    for file in files:
        if total <= target:
            break
        file.path.unlink(missing_ok=True)
        total -= file.size
        removed.append(file)
        remove_empty(file.path.parent, root)
    return removed, total


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those above it that are empty then, up to root."""
    with contextlib.suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


class Space:
    """Keeps what is below a folder within a limit; used by one thread.

    Args:
        root: the folder.
        limit: bytes.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit
        self._total: int | None = None  # bytes below root, as far as this process knows
        self._unseen = 0  # bytes written since root was measured

    def make_room(self, size: int) -> None:
        """Remove old segments until so many bytes more are within the limit.

        Raises:
            OSError: the file system is full, or files cannot be removed.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if self._total is None or self._unseen > self.limit // RESCAN:
            self._total, self._unseen = sum(file.size for file in stored_files(self.root)), 0
        if self._total + size > self.limit:
            with locked(self.root / LOCK):
                _, self._total = _evict(self.root, min(LOW_WATER * self.limit, self.limit - size))
            self._unseen = 0
        state = os.statvfs(self.root)
        if state.f_bavail * state.f_frsize < size + RESERVE_BYTES:
            raise OSError(errno.ENOSPC, f"less than {RESERVE_BYTES >> 20} MB would be left on the file system")
        self._total += size
        self._unseen += size
