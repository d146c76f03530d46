"""List, verify and prune a store on disk, while other processes use it."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videopool.features.disk import CLIPS, SOURCE, VERSION, read_record
from videopool.features.loading import content_hash, file_state
from videopool.features.segment import DAMAGED, SUFFIX, UNFINISHED, DamagedSegment, Segment, codes_of
from videopool.features.source import OWN, fits
from videopool.features.space import LOCK, evict, remove, stored_files
from videopool.files import set_aside
from videopool.locks import is_claimed, locked

ABANDONED = 60  # seconds; the writer of an older unfinished file without a claim is dead
Watch = Callable[[list[Any], str], Iterable[Any]]  # wraps a list in a progress bar: (items, title) -> items


@dataclass
class Holding:
    """The content of a store for one source."""

    name: str  # of its folder, the first digits of the source's hash
    words: dict[str, Any] = field(default_factory=dict)  # source.json; empty if unreadable
    clips: int = 0
    views: int = 0  # a view in several segments counts once
    bytes: int = 0  # of the segments
    used: int = 0  # time of last use in nanoseconds
    damaged: int = 0  # number of files set aside


def holdings(root: Path) -> list[Holding]:
    """The content of a store by source, from names of folders and files."""
    held = []
    for folder in _source_folders(root / VERSION):
        holding = Holding(folder.name, _words(folder))
        views: dict[Path, set[str]] = {}
        for file in stored_files(folder):
            if file.path.suffix == DAMAGED:
                holding.damaged += 1
                continue
            views.setdefault(file.path.parent, set()).update(codes_of(file.path.name))
            holding.bytes += file.size
            holding.used = max(holding.used, file.used)
        holding.clips, holding.views = len(views), sum(map(len, views.values()))
        held.append(holding)
    return held


def _source_folders(top: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(p for p in top.iterdir() if p.is_dir() and p.name != CLIPS)
    return []


def _words(folder: Path) -> dict[str, Any]:
    """The content of source.json, empty if unreadable."""
    with suppress(OSError, ValueError):
        words = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        return words if isinstance(words, dict) else {}
    return {}


@dataclass
class Verdict:
    """The result of verify()."""

    views: int = 0  # intact ones
    segments: int = 0  # intact ones
    clips: int = 0  # whose content was compared
    damaged: list[str] = field(default_factory=list)  # path and reason of segments and records
    changed: list[str] = field(default_factory=list)  # clips with other content, but the size and time of their record


def verify(root: Path, watch: Watch) -> Verdict:
    """Read all segments and all recorded clips. Damaged segments are set aside, so that they are made again."""
    verdict = Verdict()
    for folder in _source_folders(root / VERSION):
        words = _words(folder)
        segments = sorted(file.path for file in stored_files(folder) if file.path.suffix == SUFFIX)
        for path in watch(segments, f"segments of {folder.name}"):
            try:
                segment, codes = Segment(path, folder.name, path.parent.name), codes_of(path.name)
                for code in codes:
                    features = segment.tensor(code, verify=True)
                    dtypes = (OWN, str(features.dtype).removeprefix("torch."))
                    if words and (not fits(features.shape, words["shape"]) or words["kept"] not in dtypes):
                        raise DamagedSegment(f"{path}: of another shape or dtype than its source")
            except FileNotFoundError:
                continue
            except DamagedSegment as error:
                set_aside(path, DAMAGED)
                verdict.damaged.append(str(error))
            else:
                verdict.segments += 1
                verdict.views += len(codes)
    for path in watch(_records(root), "clips"):
        record = read_record(path)
        if record is None:
            path.unlink(missing_ok=True)
            verdict.damaged.append(f"{path}: no intact record")
        elif file_state(Path(record[0].path), record[0].opened) == record[0]:
            verdict.clips += 1
            with suppress(OSError):
                if content_hash(Path(record[0].path)) != record[1]:
                    path.unlink(missing_ok=True)
                    verdict.changed.append(record[0].path)
    return verdict


def _records(root: Path) -> list[Path]:
    return sorted((root / VERSION / CLIPS).glob("*/*.json"))


def prune(root: Path, limit: int) -> Counter[str]:
    """Remove useless files, then the least recently used segments, down to `limit` bytes.

    Returns `bytes`, and the number of files by reason: "damaged"; "unfinished", left by dead processes; "duplicates",
    whose views are in other segments; "beyond the limit"; "records of clips that are gone or changed". Raises OSError
    if files cannot be removed.
    """
    top, freed = root / VERSION, Counter[str]()
    if not top.is_dir():
        return freed

    def drop(path: Path, reason: str) -> None:
        freed.update({"bytes": path.stat().st_size, reason: 1})
        remove(path, top)

    with locked(top / LOCK):
        for path in _unfinished(top):
            drop(path, "unfinished")
        views: dict[Path, set[str]] = {}
        segments = sorted(stored_files(top), key=lambda file: (-len(codes_of(file.path.name)), file.path.name))
        for file in segments:
            codes, kept = set(codes_of(file.path.name)), views.setdefault(file.path.parent, set())
            if file.path.suffix == DAMAGED:
                drop(file.path, "damaged")
            elif codes <= kept:
                drop(file.path, "duplicates")
            kept |= codes
        # Folders with the name of a segment, set aside.
        for folder in [path for path in top.rglob(f"*{DAMAGED}") if path.is_dir()]:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            freed.update({"bytes": size, "damaged": 1})
            shutil.rmtree(folder)
    for file in evict(top, limit)[0]:
        freed.update({"bytes": file.size, "beyond the limit": 1})
    for path in _records(root):
        record = read_record(path)
        if record is None or file_state(Path(record[0].path), record[0].opened) != record[0]:
            drop(path, "records of clips that are gone or changed")
    for holding in holdings(root):
        if not holding.views:
            remove(top / holding.name / SOURCE, top)
    return freed


def _unfinished(top: Path) -> Iterator[Path]:
    """Files of writers that died: nothing holds a claim on them."""
    for folder, _, names in os.walk(top):
        for path in (Path(folder) / name for name in names if name.endswith(UNFINISHED)):
            with suppress(OSError), path.open("rb") as file:
                old = time.time() - os.fstat(file.fileno()).st_mtime > ABANDONED
                if old and not is_claimed(file.fileno()):
                    yield path
