"""Are clips those that were evaluated? Their contents are compared, and hashed only where size or time has changed."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from videopool.features import content_hash, file_state
from videopool.results import PointFolder
from videopool.results.point import METRICS, RECORDS, read_json, write_json
from videopool.results.records import read_records, write_records

STATES = "clip_states.json"  # size and time of change of each clip when the last attempt began
LISTED = 5
END = 1 << 16  # bytes

Clips = Mapping[str, Path]  # by the name that records have for them
States = dict[str, list[int] | None]

_hashed: dict[tuple[str, int, int], str] = {}  # by path, size and time of change


def states_of(clips: Clips) -> States:
    """Size in bytes and time of change of each clip; None where there is none."""
    found: States = {}
    for name, path in clips.items():
        state = file_state(path, "")
        found[name] = None if state is None else [state.size, state.modified]
    return found


def content_of(path: Path) -> str:
    """SHA-256 of a clip's content; "" if there is none or it cannot be read. Hashed once for each state."""
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
    """SHA-256 of sizes and both ends of a clip's files: of many more than can be read whole; "" if it is not there."""
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
    """Keep the states of clips before any is read. Raises ResultsError if that cannot be written."""
    write_json(folder.path / STATES, {"states": states, **({} if ends is None else {"ends": ends})})


def kept_ends(folder: PointFolder) -> dict[str, str]:
    """What keep_states kept of clips' ends."""
    ends = (read_json(folder.path / STATES) or {}).get("ends")
    return ends if isinstance(ends, dict) else {}


def touched(folder: PointFolder, states: States) -> set[str]:
    """Clips whose size or time of change is not what it was when the last attempt began."""
    kept = (read_json(folder.path / STATES) or {}).get("states")
    before = kept if isinstance(kept, dict) else {}
    return {name for name, state in states.items() if state is not None and before.get(name) != state}


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def outdated(folder: PointFolder, clips: Clips, states: States) -> dict[str, list[str]]:
    """Records of a point whose clips are others by now: ids of samples by clip.

    A clip that is as it was when the last attempt began is not hashed, one that is not there cannot be compared.
    """
    old = touched(folder, states)
    found: dict[str, list[str]] = {}
    for record in read_records(folder.path / RECORDS) if old else ():
        name = str(record["clip"])
        if name in old and record.get("content") != content_of(clips[name]):
            found.setdefault(name, []).append(str(record["id"]))
    return found


def redo_outdated(folder: PointFolder, clips: Clips, states: States) -> str:
    """Forget the records of a claimed point whose clips are others by now, and that it is finished.

    Returns:
        One line on them; "" if there is none.

    Raises:
        ResultsError: the records cannot be written.
    """
    if not (old := outdated(folder, clips, states)):
        return ""
    lost = {sample for samples in old.values() for sample in samples}
    kept = [record for record in read_records(folder.path / RECORDS) if record["id"] not in lost]
    (folder.path / METRICS).unlink(missing_ok=True)
    write_records(folder.path / RECORDS, kept)
    names = sorted(old)
    return (
        f"{folder.path.name}: clips with other contents than when they were evaluated: {len(names)} ({listed(names)}); "
        f"samples done again: {len(lost)}"
    )
