"""The size limit of a store on disk: the least recently used segments go first."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from videopool.features.segment import DAMAGED, SUFFIX
from videopool.locks import locked

LOCK = "lock"
RESCAN = 16  # measure again after writing 1/16 of the limit: other processes write too
LOW_WATER = 0.9  # of the limit: how far down eviction goes
RESERVE_BYTES = 1 << 28  # stay free on the file system, for results


class StoredFile(NamedTuple):
    """A segment on disk, intact or damaged."""

    path: Path
    size: int  # bytes
    used: int  # time of last use in nanoseconds


def stored_files(root: Path) -> Iterator[StoredFile]:
    """All segments below a folder, including damaged ones. Skips files that vanish meanwhile."""
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


def evict(root: Path, target: float) -> tuple[list[StoredFile], int]:
    """Remove damaged files, then the least recently used segments, down to `target` bytes.

    Returns the removed files and the bytes left. A segment that a process has mapped stays readable there.
    """
    with locked(root / LOCK):
        files = sorted(stored_files(root), key=lambda file: (file.path.suffix != DAMAGED, file.used))
        left, removed = sum(file.size for file in files), []
        for file in files:
            if left <= target:
                break
            remove(file.path, root)
            left -= file.size
            removed.append(file)
    return removed, left


def remove(path: Path, root: Path) -> None:
    """Remove a file, if it is there, and then the folders up to root that are empty."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in path.parents:
            if folder == root:
                break
            folder.rmdir()


class Space:
    """Keeps a folder within a limit in bytes. For one thread."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit
        self._total: int | None = None  # bytes below root, as far as this process knows
        self._unseen = 0  # bytes written since root was measured

    def make_room(self, size: int) -> None:
        """Evict until `size` more bytes fit. Raises OSError if the file system is full or files cannot be removed."""
        self.root.mkdir(parents=True, exist_ok=True)
        if self._total is None or self._unseen > self.limit // RESCAN:
            self._total, self._unseen = sum(file.size for file in stored_files(self.root)), 0
        if self._total + size > self.limit:
            _, self._total = evict(self.root, min(LOW_WATER * self.limit, self.limit - size))
            self._unseen = 0
        state = os.statvfs(self.root)
        if state.f_bavail * state.f_frsize < size + RESERVE_BYTES:
            raise OSError(errno.ENOSPC, f"less than {RESERVE_BYTES >> 20} MB would be left on the file system")
        self._total += size
        self._unseen += size
