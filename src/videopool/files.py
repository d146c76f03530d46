"""Files and folders that take another's place whole, or not at all."""

import contextlib
import ctypes
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

PART = ".part"  # ends the names of what is not whole yet
ABANDONED = 3600  # seconds after which a part is taken for that of a process that died
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives the path to write to; once the block ends, and the bytes are on the disk, that file becomes `path`.

    Raises:
        OSError: it cannot be written. As after any other error, `path` is what it was, and nothing is left beside it.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _forget_abandoned(path)


def write_text(path: Path, text: str) -> str:
    """Write a text file whole. Returns its name. Raises OSError as whole()."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
    return str(path)


def _forget_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):
        for old in path.parent.glob(f".{path.name}.*{PART}"):
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
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
        for file in part.rglob("*"):
            if file.is_file():
                sync(file)
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


def sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
