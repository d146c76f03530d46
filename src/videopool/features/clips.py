"""Content hash, length and timing of clips, on disk, by path, size and time of change.

A record is valid while the clip's size and time of change stay the same and the clip is opened the same way.
`upkeep.verify` reads the clip again.
"""

import base64
import contextlib
import hashlib
import json
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from videopool.features.segment import write_whole
from videopool.features.store import ClipState
from videopool.video import ClipInfo

FOLDER = "clips"


class ClipRecords:
    """A folder with one small file per clip and way of opening it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[ClipState, tuple[str, ClipInfo]] = {}

    def _path(self, state: ClipState) -> Path:
        name = hashlib.sha256(f"{state.path}\0{state.opened}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def get(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        """Content hash, length and timing of a clip in this state, or None."""
        if state not in self._known:
            record = read_record(self._path(state))
            if record is None or record[0] != state:
                return None
            self._known[state] = record[1:]
        return self._known[state]

    def put(self, state: ClipState, content: str, info: ClipInfo) -> None:
        """Keep a clip's content hash, length and timing. Raises OSError if it cannot be written."""
        if state in self._known and self._known[state][0] == content:
            return
        self._known[state] = (content, info)
        write_whole(self._path(state), _packed(state, content, info), fsync=False)


def _packed(state: ClipState, content: str, info: ClipInfo) -> bytes:
    times = None
    if info.timestamps is not None:
        times = base64.b64encode(np.asarray(info.timestamps, "<f8").tobytes()).decode()
    record = {**asdict(state), "content": content, **vars(info), "timestamps": times}
    return json.dumps({**record, "checksum": _checksum(record)}).encode()


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def read_record(path: Path) -> tuple[ClipState, str, ClipInfo] | None:
    """A clip's state, content hash, length and timing; None if there is no intact record."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_bytes())
        if record.pop("checksum") == _checksum(record):
            times = record["timestamps"]
            stamps = None if times is None else np.frombuffer(base64.b64decode(times), "<f8").astype(np.float64)
            info = ClipInfo(record["num_frames"], record["fps"], stamps, record["first_index"])
            state = ClipState(**{field.name: record[field.name] for field in fields(ClipState)})
            return state, record["content"], info
    return None
