"""Whether clips still have the evaluated contents. A clip is hashed only if its size or modification time changed."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from videopool.benchmarks.errors import listed
from videopool.features import content_hash, file_state
from videopool.results import PointFolder
from videopool.results.point import METRICS, RECORDS, part_of, read_json, write_json
from videopool.results.records import read_records, write_records
from videopool.runtime.progress import watched

STATES = "clip_states.json"  # size and modification time of each clip when the last attempt began
END = 1 << 16  # bytes

_hashed: dict[tuple[str, int, int], str] = {}  # by path, size and modification time


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


class ClipStates:
    """Size and modification time of a folder's clips (by their names in records): now, and when the last attempt began.

    A clip that is missing now has no state, and cannot be compared.
    """

    def __init__(self, folder: PointFolder, clips: Mapping[str, Path]) -> None:
        self.folder, self.clips = folder, clips
        states = {name: file_state(path, "") for name, path in clips.items()}
        self.now = {name: state and [state.size, state.modified] for name, state in states.items()}

    def keep(self, ends: Mapping[str, str] | None = None) -> None:
        """Write the states, before any clip is read. Raises ResultsError if they cannot be written."""
        write_json(self.folder.path / STATES, {"states": self.now, **({} if ends is None else {"ends": ends})})

    def kept(self, name: str) -> dict[str, Any]:
        """The `states` or `ends` that were kept last."""
        return part_of(read_json(self.folder.path / STATES) or {}, name)

    def touched(self) -> set[str]:
        """Clips whose size or modification time changed since the last attempt began; no other clip is ever read."""
        old = self.kept("states")
        return {name for name, state in self.now.items() if state is not None and old.get(name) != state}

    def changed(self, before: Mapping[str, str], content: Callable[[Path], str] = content_of) -> list[str]:
        """Clips with another content than before, as far as it is known."""
        suspects = watched(sorted(self.touched() & before.keys()), "comparing clips that changed")
        return [name for name in suspects if before[name] not in ("", content(self.clips[name]))]

    def outdated(self) -> dict[str, list[str]]:
        """Ids of samples, by clip, whose record belongs to another content of the clip."""
        old, samples = self.touched(), defaultdict[str, list[str]](list)
        records = [r for r in read_records(self.folder.path / RECORDS) if str(r["clip"]) in old] if old else []
        for record in watched(records, "comparing clips that changed"):
            name = str(record["clip"])
            if record.get("content") != content_of(self.clips[name]):
                samples[name].append(str(record["id"]))
        return samples

    def redo_outdated(self) -> str:
        """Delete outdated records of a claimed point, and its metrics, so that it is unfinished.

        Returns one line on them, or "" if there are none. Raises ResultsError if the records cannot be written.
        """
        if not (old := self.outdated()):
            return ""
        path, lost = self.folder.path, {sample for samples in old.values() for sample in samples}
        kept = [record for record in read_records(path / RECORDS) if record["id"] not in lost]
        (path / METRICS).unlink(missing_ok=True)
        write_records(path / RECORDS, kept)
        return (
            f"{path.name}: clips with other contents than when they were evaluated: {len(old)} "
            f"({listed(sorted(old))}); samples done again: {len(lost)}"
        )
