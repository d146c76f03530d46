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

PART = ".part"  # ends the names of what is not whole yet
ABANDONED = 3600  # seconds after which a part is taken for that of a process that died
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def whole(path: Path, fsync: bool = True, part: Path | None = None) -> Iterator[Path]:
    """Gives the path to write to; once the block ends, and the bytes are on the disk, that file becomes `path`.

    Args:
        fsync: wait for the disk; without it, a machine that crashes may leave an empty file.
        part: the path to write to, beside `path`, where its own name would be too long.

    Raises:
        OSError: it cannot be written. As after any other error, `path` is what it was, and nothing is left beside it.
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
        _forget_abandoned(path)


def write_text(path: Path, text: str) -> str:
    """Write a text file whole. Returns its name. Raises OSError as whole()."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # of a path that is no UTF-8
    return str(path)


def append(path: Path, text: str) -> None:
    """Append lines to a file, which is made if it is not there: all of them or none, whoever else appends.

    Behind half a line, which a process that was killed may have left, they begin a new one. They are handed to the
    operating system, without waiting for the disk.

    Raises:
        OSError: they cannot be written; what was written before stays.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    locks.claim(file, wait=True)
    try:
        size = os.fstat(file).st_size
        begins = not text or size == 0 or os.pread(file, 1, size - 1) == b"\n"
        left = memoryview((text if begins else f"\n{text}").encode(errors="backslashreplace"))
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            os.ftruncate(file, size)  # no half line for another process to write behind
            raise
    finally:
        locks.release(file)  # a fork, which shares it, may live on
        os.close(file)


def json_lines(rows: Iterable[Mapping[str, object]]) -> str:
    """Objects as JSON, one per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, none if there is no file; a line that was cut off is left out."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError):
            if isinstance(row := json.loads(line), dict):
                yield row


def set_aside(path: Path, ending: str) -> None:
    """Rename a file, so that nothing reads it again. Where that cannot be done, it stays."""
    with contextlib.suppress(OSError):
        os.rename(path, path.with_name(path.name + ending))


def _forget_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):
        for old in path.parent.glob(f".{path.name}.*{PART}"):
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()


@contextlib.contextmanager
def whole_folder(path: Path, fsync: bool = True) -> Iterator[Path]:
    """Gives a new folder to write into; once the block ends, and its files are on the disk, it becomes `path`.

    Where the system can, both change places at once, so that there is no moment without one of them.

    Raises:
        OSError: it cannot be written. As after any other error, `path` is what it was, and nothing is left beside it.
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


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places, at once where the system can."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    if swap is not None and swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    aside = one.with_name(f"{one.name}.old")
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
