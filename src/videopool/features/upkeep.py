"""What a store on disk holds; checking all of it; clearing it up. Other processes may go on using it meanwhile."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videopool.features.clips import FOLDER, read_record
from videopool.features.disk import SOURCE, VERSION
from videopool.features.errors import DamagedSegmentError
from videopool.features.loading import content_hash, file_state
from videopool.features.segment import DAMAGED, SUFFIX, UNFINISHED, Segment, codes_of
from videopool.features.source import fits, read_words
from videopool.features.space import LOCK, evict, remove_empty, stored_files
from videopool.files import set_aside
from videopool.locks import is_claimed, locked

ABANDONED = 60  # seconds after which an unfinished file that nobody claims is taken for a dead process's
Watch = Callable[[list[Any], str], Iterable[Any]]  # items and what is done with them, to the items one by one


@dataclass
class Holding:
    """What a store holds of one source.

    Attributes:
        name: of its folder, the first digits of the source's hash.
        words: what the source is, as source.json says; empty if that cannot be read.
        clips, views: how many; a view that several segments hold counts once.
        bytes: of the segments.
        used: when one was last used, in nanoseconds.
        damaged: files that were set aside.
    """

    name: str
    words: dict[str, Any] = field(default_factory=dict)
    clips: int = 0
    views: int = 0
    bytes: int = 0
    used: int = 0
    damaged: int = 0


def holdings(root: Path) -> list[Holding]:
    """What is kept below a store's root, by source, as folders and names of files tell."""
    found = []
    for folder in _source_folders(root / VERSION):
        holding = Holding(folder.name, read_words(folder / SOURCE) or {})
        views: dict[Path, set[str]] = {}
        for file in stored_files(folder):
            if file.path.suffix == DAMAGED:
                holding.damaged += 1
                continue
            views.setdefault(file.path.parent, set()).update(codes_of(file.path.name))
            holding.bytes += file.size
            holding.used = max(holding.used, file.used)
        holding.clips, holding.views = len(views), sum(map(len, views.values()))
        found.append(holding)
    return found


def _source_folders(top: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(p for p in top.iterdir() if p.is_dir() and p.name != FOLDER)
    return []


@dataclass
class Verdict:
    """What verify() found.

    Attributes:
        views, segments, clips: that were read; clips are those whose content was compared.
        damaged: segments set aside, and why.
        changed: clips that are not what their records say, though size and time of change are.
    """

    views: int = 0
    segments: int = 0
    clips: int = 0
    damaged: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def verify(root: Path, watch: Watch) -> Verdict:
    """Read every segment and every recorded clip. What is damaged is set aside, so that it is made again."""
    verdict = Verdict()
    for folder in _source_folders(root / VERSION):
        words = read_words(folder / SOURCE)
        segments = sorted(file.path for file in stored_files(folder) if file.path.suffix == SUFFIX)
        for path in watch(segments, f"segments of {folder.name}"):
            try:
                segment = Segment(path, folder.name, path.parent.name)
                for code in codes_of(path.name):
                    if words is not None and not fits(words, segment.tensor(code, verify=True)):
                        raise DamagedSegmentError(f"{path}: of another shape or dtype than its source")
                verdict.segments += 1
                verdict.views += len(codes_of(path.name))
            except FileNotFoundError:
                continue
            except DamagedSegmentError as error:
                set_aside(path, DAMAGED)
                verdict.damaged.append(str(error))
    for path in watch(_records(root), "clips"):
        record = read_record(path)
        if record is None:
            path.unlink(missing_ok=True)
            verdict.damaged.append(f"{path}: no whole record")
        elif file_state(Path(record[0].path), record[0].opened) == record[0]:
            verdict.clips += 1
            with suppress(OSError):
                if content_hash(Path(record[0].path)) != record[1]:
                    path.unlink(missing_ok=True)
                    verdict.changed.append(record[0].path)
    return verdict


def _records(root: Path) -> list[Path]:
    return sorted((root / VERSION / FOLDER).glob("*/*.json"))


@dataclass
class Freed:
    """What prune() removed.

    Attributes:
        bytes: in all.
        damaged, unfinished, duplicates, old: how many files: set aside; left by processes that died; with
            views that other segments hold; beyond the limit.
        records: of clips that are gone or were changed.
    """

    bytes: int = 0
    damaged: int = 0
    unfinished: int = 0
    duplicates: int = 0
    old: int = 0
    records: int = 0


def prune(root: Path, limit: int) -> Freed:
    """Remove what is of no use, then what was not used for longest, down to a limit in bytes.

    Raises:
        OSError: files cannot be removed.
    """
    top, freed = root / VERSION, Freed()
    if not top.is_dir():
        return freed
    with locked(top / LOCK):
        for path in _unfinished(top):
            freed.bytes += _remove(path, top)
            freed.unfinished += 1
        views: dict[Path, set[str]] = {}
        segments = sorted(stored_files(top), key=lambda file: (-len(codes_of(file.path.name)), file.path.name))
        for file in segments:
            codes, kept = set(codes_of(file.path.name)), views.setdefault(file.path.parent, set())
            if file.path.suffix == DAMAGED:
                freed.bytes += _remove(file.path, top)
                freed.damaged += 1
            elif codes <= kept:
                freed.bytes += _remove(file.path, top)
                freed.duplicates += 1
            kept |= codes
        for folder in _damaged_folders(top):
            freed.bytes += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shutil.rmtree(folder)
            freed.damaged += 1
    for file in evict(top, limit):
        freed.bytes += file.size
        freed.old += 1
    for path in _records(root):
        record = read_record(path)
        if record is None or file_state(Path(record[0].path), record[0].opened) != record[0]:
            freed.bytes += _remove(path, top)
            freed.records += 1
    for holding in holdings(root):
        if not holding.views:
            (top / holding.name / SOURCE).unlink(missing_ok=True)
            remove_empty(top / holding.name, top)
    return freed


def _unfinished(top: Path) -> Iterator[Path]:
    """Files that a process was writing when it died: nothing holds a claim to them."""
    for folder, _, names in os.walk(top):
        for name in names:
            if name.endswith(UNFINISHED):
                path = Path(folder) / name
                with suppress(OSError), path.open("rb") as file:
                    old = time.time() - os.fstat(file.fileno()).st_mtime > ABANDONED
                    if old and not is_claimed(file.fileno()):
                        yield path


def _damaged_folders(top: Path) -> list[Path]:
    """Folders with the name of a segment that were set aside."""
    return [Path(at) / name for at, names, _ in os.walk(top) for name in names if name.endswith(DAMAGED)]


def _remove(path: Path, top: Path) -> int:
    """Remove a file, and folders that are empty then. Returns its size."""
    size = path.stat().st_size
    path.unlink()
    remove_empty(path.parent, top)
    return size
