"""Files: written whole with fsync, or appended."""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from videopool import locks

PART = ".part"  # ends the names of unfinished files
ABANDONED = 3600  # seconds after which a part's process is taken for dead
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def whole(path: Path, fsync: bool = True, part: Path | None = None) -> Iterator[Path]:
    """Yields a path to write to. At the end of the block, that file is synced and replaces `path`.

    Args:
        fsync: wait for the disk; without it, a crash of the machine may leave an empty file.
        part: the path to write to, beside `path`, where the default name would be too long.

    Raises:
        OSError: a write failed. After any error `path` is unchanged, and nothing is left beside it.
    """
    own = part or path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        yield own
        if fsync:
            _sync(own)
        os.replace(own, path)
    except BaseException:
        own.unlink(missing_ok=True)
        raise
    if part is None:
        with contextlib.suppress(OSError):
            for old in path.parent.glob(f".{path.name}.*{PART}"):
                if time.time() - old.stat().st_mtime > ABANDONED:
                    old.unlink()


def write_text(path: Path, text: str) -> str:
    """Write a text file whole. Returns its name. Raises OSError as whole()."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # of a path that is no UTF-8
    return str(path)


def append(path: Path, text: str) -> None:
    """Append lines to a file, all or none, whoever else appends. Creates the file.

    They start a new line after half a line, which a killed process may have left. There is no fsync.

    Raises:
        OSError: a write failed; the file is unchanged.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    locks.claim(file, wait=True)
    try:
        size = os.fstat(file).st_size
        at_start = not text or size == 0 or os.pread(file, 1, size - 1) == b"\n"
        left = memoryview((text if at_start else f"\n{text}").encode(errors="backslashreplace"))
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            os.ftruncate(file, size)  # no half line before the next writer's
            raise
    finally:
        locks.release(file)  # a fork, which shares it, may live on
        os.close(file)


def json_lines(rows: Iterable[Mapping[str, object]]) -> str:
    """Objects as JSON, one per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file, without lines that were cut off; nothing if there is no file."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError):
            if isinstance(row := json.loads(line), dict):
                yield row


def set_aside(path: Path, ending: str) -> None:
    """Rename a file so that nothing reads it again; it stays if the rename fails."""
    with contextlib.suppress(OSError):
        os.rename(path, path.with_name(path.name + ending))


@contextlib.contextmanager
def whole_folder(path: Path, fsync: bool = True) -> Iterator[Path]:
    """Yields a new folder to write into. At the end of the block, its files are synced and it replaces `path`.

    Both are exchanged atomically where the system can.

    Raises:
        OSError: a write failed. After any error `path` is unchanged, and nothing is left beside it.
    """
    part = path.with_name(f".{path.name}{PART}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for file in part.rglob("*") if fsync else ():
            if file.is_file():
                _sync(file)
        if path.exists():
            _exchange(part, path)
        else:
            os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders, atomically where the system can."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(new), os.fsencode(old)
    if swap is not None and swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    aside = new.with_name(f"{new.name}.old")
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except OSError:
        os.rename(aside, old)
        raise
    os.rename(aside, new)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
