"""What is known of clips, on disk: content hash, length and timing, by path, size and time of change.

A record is trusted for as long as the clip's size and time of change are those it was written with, and the
clip is opened the same way. `check` reads the clip again.
"""

import base64
import contextlib
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from videopool.features.segment import write_whole
from videopool.features.store import ClipState
from videopool.video import ClipInfo

FOLDER = "clips"


class ClipRecords:
    """One small file a clip and way of opening it, below a folder.

    Args:
        folder: of the records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[ClipState, tuple[str, ClipInfo]] = {}

    def path(self, state: ClipState) -> Path:
        """Where the record of a clip is, in whatever state the clip is."""
        name = hashlib.sha256(f"{state.path}\0{state.opened}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def get(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        """Content hash, and length and timing, of a clip in this state, or None."""
        if state not in self._known:
            kept = read_record(self.path(state))
            if kept is None or kept[0] != state:
                return None
            self._known[state] = kept[1:]
        return self._known[state]

    def put(self, state: ClipState, content: str, info: ClipInfo) -> None:
        """Keep what is known of a clip. Raises OSError if it cannot be written."""
        if state in self._known and self._known[state][0] == content:
            return
        self._known[state] = (content, info)
        write_whole(self.path(state), _packed(state, content, info), fsync=False)


def _packed(state: ClipState, content: str, info: ClipInfo) -> bytes:
    times = None
    if info.timestamps is not None:
        times = base64.b64encode(np.asarray(info.timestamps, "<f8").tobytes()).decode()
    record = {
        "path": state.path,
        "size": state.size,
        "modified": state.modified,
        "opened": state.opened,
        "content": content,
        "num_frames": info.num_frames,
        "fps": info.fps,
        "first_index": info.first_index,
        "timestamps": times,
    }
    return json.dumps({**record, "checksum": _checksum(record)}).encode()


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def read_record(path: Path) -> tuple[ClipState, str, ClipInfo] | None:
    """The clip's state, its content hash, length and timing; None if there is no whole record."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_bytes())
        if record.pop("checksum") == _checksum(record):
            times = record["timestamps"]
            stamps = None if times is None else np.frombuffer(base64.b64decode(times), "<f8").astype(np.float64)
            info = ClipInfo(record["num_frames"], record["fps"], stamps, record["first_index"])
            state = ClipState(record["path"], record["size"], record["modified"], record["opened"])
            return state, record["content"], info
    return None
