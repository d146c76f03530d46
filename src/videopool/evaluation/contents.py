"""Whether clips still have the evaluated contents. A clip is hashed only if its size or modification time changed."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videopool.benchmarks.errors import listed
from videopool.features import content_hash, file_state
from videopool.results import PointFolder
from videopool.results.point import METRICS, RECORDS, read_json, write_json
from videopool.results.records import read_records, write_records

STATES = "clip_states.json"  # size and modification time of each clip when the last attempt began
END = 1 << 16  # bytes

Clips = Mapping[str, Path]  # by the clip's name in records
States = dict[str, list[int] | None]

_hashed: dict[tuple[str, int, int], str] = {}  # by path, size and modification time


def states_of(clips: Clips) -> States:
    """Size in bytes and modification time of each clip; None for a missing clip."""
    states = {name: file_state(path, "") for name, path in clips.items()}
    return {name: None if state is None else [state.size, state.modified] for name, state in states.items()}


def content_of(path: Path) -> str:
    """SHA-256 of a clip's content, hashed once for each state; "" if the clip is missing or unreadable."""
    state = file_state(path, "")
    if state is None:
        return ""
    key = (state.path, state.size, state.modified)
    if key not in _hashed:
        try:
            _hashed[key] = content_hash(path)
        except OSError:
            return ""
    return _hashed[key]


def ends_of(path: Path) -> str:
    """SHA-256 of size and both ends of each of a clip's files, for data too large to read whole; "" if missing."""
    digest = hashlib.sha256()
    try:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            with file.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                digest.update(f"{size}\0".encode())
                for place in (0, max(END, size - END)):
                    opened.seek(place)
                    digest.update(opened.read(END))
    except OSError:
        return ""
    return digest.hexdigest()


def keep_states(folder: PointFolder, states: States, ends: Mapping[str, str] | None = None) -> None:
    """Write the states of clips, before any clip is read. Raises ResultsError if they cannot be written."""
    write_json(folder.path / STATES, {"states": states, **({} if ends is None else {"ends": ends})})


def kept_ends(folder: PointFolder) -> dict[str, str]:
    """The clips' ends from keep_states."""
    return _kept(folder, "ends")


def touched(folder: PointFolder, states: States) -> set[str]:
    """Clips whose size or modification time changed since the last attempt began."""
    before = _kept(folder, "states")
    return {name for name, state in states.items() if state is not None and before.get(name) != state}


def _kept(folder: PointFolder, name: str) -> dict[str, Any]:
    kept = (read_json(folder.path / STATES) or {}).get(name)
    return kept if isinstance(kept, dict) else {}


def outdated(folder: PointFolder, clips: Clips, states: States) -> dict[str, list[str]]:
    """Ids of samples, by clip, whose record belongs to another content of the clip.

    Untouched clips are not hashed, and missing clips cannot be compared.
    """
    old = touched(folder, states)
    samples: dict[str, list[str]] = {}
    for record in read_records(folder.path / RECORDS) if old else ():
        name = str(record["clip"])
        if name in old and record.get("content") != content_of(clips[name]):
            samples.setdefault(name, []).append(str(record["id"]))
    return samples


def redo_outdated(folder: PointFolder, clips: Clips, states: States) -> str:
    """Delete outdated records of a claimed point, and its metrics, so that it is unfinished.

    Returns one line on them, or "" if there are none. Raises ResultsError if the records cannot be written.
    """
    if not (old := outdated(folder, clips, states)):
        return ""
    lost = {sample for samples in old.values() for sample in samples}
    kept = [record for record in read_records(folder.path / RECORDS) if record["id"] not in lost]
    (folder.path / METRICS).unlink(missing_ok=True)
    write_records(folder.path / RECORDS, kept)
    return (
        f"{folder.path.name}: clips with other contents than when they were evaluated: {len(old)} "
        f"({listed(sorted(old))}); samples done again: {len(lost)}"
    )
