"""Features on disk, shared by processes and runs: each view is encoded once.

<root>/v1/<source, 16 digits>/source.json                                   the source in words
<root>/v1/<source>/<content, 2 digits>/<content>/<segment>.safetensors      views of one clip
<root>/v1/clips/<2 digits>/<path's hash>.json                               record of a clip

A clip's record holds its content hash, length and timing. It is valid while the clip's size and time of change stay the
same and the clip is opened the same way; `upkeep.verify` reads the clip again.
"""

import base64
import contextlib
import hashlib
import json
import os
import secrets
import threading
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from videopool.features.segment import DAMAGED, SUFFIX, DamagedSegment, Segment, codes_of, grouped, pack, write_whole
from videopool.features.source import OWN, ClipKey, FeatureSource, View, fits, source_hash, view_code
from videopool.features.space import Space
from videopool.features.store import DTYPES, ClipState, FeatureStore, FeatureStoreError, finite, round_features
from videopool.files import set_aside
from videopool.video import ClipInfo

VERSION = "v1"
SOURCE, CLIPS = "source.json", "clips"
PENDING = 4  # clips that may wait to be written


class DiskStore(FeatureStore):
    """Keeps features in files below a folder, which the first write makes.

    Safe for any number of processes and threads. A thread of its own writes. Views that cannot be written or read are
    computed, and finish() says so. Beyond limit_bytes of all files together, the least recently used segments go first.
    `dtype` and errors are those of every store.
    """

    def __init__(self, root: str | Path, limit_bytes: int, dtype: str | None = "float16") -> None:
        if isinstance(limit_bytes, bool) or not isinstance(limit_bytes, int) or limit_bytes < 0:
            raise FeatureStoreError(f"features.limit_bytes={limit_bytes}: give a whole number of bytes")
        super().__init__(dtype)
        self.root, self.limit_bytes = Path(root), limit_bytes
        self._top = self.root / VERSION
        self._space = Space(self._top, limit_bytes)
        self._start()
        self._clips: dict[ClipState, tuple[str, ClipInfo]] = {}
        self._sources: dict[FeatureSource, tuple[str, Path]] = {}
        self._verified: dict[str, set[str]] = defaultdict(set)
        self._touched: set[Path] = set()
        self._bad: set[str] = set()
        self._writable = True
        self._damaged = 0
        self._notes: dict[str, str] = {}  # by kind of failure, so that each appears once

    def _start(self) -> None:
        """Lock and writer of this process."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._writer: ThreadPoolExecutor | None = None
        self._writes: dict[Future[None], ClipKey] = {}

    def _here(self) -> threading.RLock:
        """The lock; a forked process gets its own, and its own writer."""
        if self._process != os.getpid():
            self._start()
        return self._lock

    def __reduce__(self) -> tuple[type, tuple[Path, int, str | None]]:
        return type(self), (self.root, self.limit_bytes, self.dtype)

    def missing(self, clip: ClipKey, views: Sequence[View]) -> list[View]:
        with self._here():
            self._wait_for(clip)
            listed, folder = self._list(clip), self._folder(clip)
            for name in {listed[code][0] for code in map(view_code, views) if code in listed}:
                self._touch(folder / name)
            return [view for view in dict.fromkeys(views) if view_code(view) not in listed]

    def get(self, clip: ClipKey, views: Sequence[View]) -> dict[View, Tensor]:
        with self._here():
            self._wait_for(clip)
            lost: set[View] = set()
            while True:
                listed = self._list(clip)
                kept = self._collect(clip, views, listed)
                damaged = {view for view in views if not self._bad.isdisjoint(listed.get(view_code(view), ()))}
                if not damaged:
                    break
                lost |= damaged  # _read() set the segment aside, with all its views
            self._damaged += len(lost - kept.keys())
            return kept

    def put(self, clip: ClipKey, features: Mapping[View, Tensor]) -> dict[View, Tensor]:
        rounded = round_features(features, self.dtype_of(clip.source))
        for values in rounded.values():
            if not fits(values.shape, clip.source.shape):
                raise ValueError(f"features of shape {tuple(values.shape)} from a source of {clip.source.shape}")
        if self._writable and all(map(finite, rounded.values())):
            with self._here():
                if self._writer is None:
                    self._writer = ThreadPoolExecutor(1, "features")
                while len(self._writes) >= PENDING:
                    self._settle(next(iter(self._writes)))
                self._writes[self._writer.submit(self._write, clip, rounded)] = clip
        return rounded

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        if state not in self._clips:
            record = read_record(self._record(state))
            if record is None or record[0] != state:
                return None
            self._clips[state] = record[1:]
        return self._clips[state]

    def remember(self, state: ClipState, content: str, info: ClipInfo) -> None:
        if self._writable and self._clips.get(state, ("",))[0] != content:
            self._clips[state] = (content, info)
            try:
                write_whole(self._record(state), pack_record(state, content, info), fsync=False)
            except OSError as error:
                self._stop_writing(error)

    def _record(self, state: ClipState) -> Path:
        name = hashlib.sha256(f"{state.path}\0{state.opened}".encode()).hexdigest()
        return self._top / CLIPS / name[:2] / f"{name}.json"

    def finish(self) -> list[str]:
        with self._here():
            self._wait_for(None)
            if self._writer is not None:
                self._writer.shutdown()  # so that loader processes are forked without this thread
                self._writer = None
            lines = list(self._notes.values())
            if self._damaged:
                entries = "entry" if self._damaged == 1 else "entries"
                where = f"(set aside as *{DAMAGED} below {self._top})"
                lines.append(f"{self._damaged} damaged {entries} recomputed {where}")
            self._notes.clear()
            self._damaged = 0
            return [f"feature store: {line}" for line in lines]

    # Reading

    def _source(self, source: FeatureSource) -> tuple[str, Path]:
        """Hash and folder of a source."""
        if source not in self._sources:
            digits = source_hash(source, self.dtype_of(source) or OWN)
            self._sources[source] = (digits, self._top / digits[:16])
        return self._sources[source]

    def _folder(self, clip: ClipKey) -> Path:
        return self._source(clip.source)[1] / clip.content[:2] / clip.content

    def _list(self, clip: ClipKey) -> dict[str, list[str]]:
        """Names of segments by code of a view, from the folder as it is now."""
        listed: dict[str, list[str]] = {}
        names: set[str] = set()
        with contextlib.suppress(OSError):
            names.update(os.listdir(self._folder(clip)))
        for name in sorted(names - self._bad):
            for code in codes_of(name):
                listed.setdefault(code, []).append(name)
        return listed

    def _collect(self, clip: ClipKey, views: Sequence[View], listed: dict[str, list[str]]) -> dict[View, Tensor]:
        """Views from the listed segments."""
        opened: dict[str, Segment] = {}
        kept: dict[View, Tensor] = {}
        for view in dict.fromkeys(views):
            code = view_code(view)
            for name in listed.get(code, ()):
                features = self._read(clip, name, code, opened)
                if features is not None:
                    kept[view] = features
                    break
        return kept

    def _read(self, clip: ClipKey, name: str, code: str, opened: dict[str, Segment]) -> Tensor | None:
        """A view from a segment, None if the segment is gone or damaged. Sets a damaged segment aside."""
        if name in self._bad:
            return None
        path = self._folder(clip) / name
        try:
            if name not in opened:
                opened[name] = Segment(path, self._source(clip.source)[0], clip.content)
            features = opened[name].tensor(code, verify=code not in self._verified[name])
            kept = self.dtype_of(clip.source)
            dtype = features.dtype if kept is None else DTYPES[kept]
            if not fits(features.shape, clip.source.shape) or features.dtype != dtype:
                raise DamagedSegment(f"{path}: of another shape or dtype than its source")
        except FileNotFoundError:  # another process evicted it
            return None
        except DamagedSegment:
            self._bad.add(name)
            set_aside(path, DAMAGED)
            return None
        self._verified[name].add(code)
        self._touch(path)
        return features

    def _touch(self, path: Path) -> None:
        """Mark a segment as used, once per process."""
        if path not in self._touched:
            self._touched.add(path)
            with contextlib.suppress(OSError):  # read-only, or gone: reading it will tell
                os.utime(path)

    # Writing

    def _wait_for(self, clip: ClipKey | None) -> None:
        """Wait for the pending writes of a clip; None for all clips."""
        for write in [write for write, written in self._writes.items() if clip in (None, written)]:
            self._settle(write)

    def _settle(self, write: Future[None]) -> None:
        del self._writes[write]
        write.result()

    def _write(self, clip: ClipKey, features: Mapping[View, Tensor]) -> None:
        """Runs in the writer's thread. Takes no lock, because holders of the lock wait for it."""
        listed = self._list(clip)
        fresh = {view: values for view, values in features.items() if view_code(view) not in listed}
        size = sum(values.nbytes for values in fresh.values())
        if size > self.limit_bytes:
            reason = f"do not fit features.limit_bytes={self.limit_bytes}: not kept"
            self._notes["too large"] = f"a clip's features ({size / 1e6:.3g} MB) {reason}"
            return
        digits, folder = self._source(clip.source)
        try:
            for group in grouped(fresh):
                if not self._writable:
                    return
                content = pack(digits, clip.content, group)
                self._space.make_room(len(content))
                if not (folder / SOURCE).exists():
                    kept = self.dtype_of(clip.source) or OWN
                    words = {"kept": kept, "hash": digits, **clip.source.words("model")}
                    write_whole(folder / SOURCE, json.dumps(words, indent=1).encode())
                name = ".".join(map(view_code, group)) + f"-{secrets.token_hex(6)}{SUFFIX}"
                write_whole(self._folder(clip) / name, content)
        except OSError as error:
            self._stop_writing(error)

    def _stop_writing(self, error: OSError) -> None:
        self._writable = False
        self._notes["stopped"] = f"{self.root} cannot be written ({error.strerror or error}): nothing more is kept"


def pack_record(state: ClipState, content: str, info: ClipInfo) -> bytes:
    """The bytes of a clip's record."""
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
            state = ClipState(record["path"], record["size"], record["modified"], record["opened"])
            return state, record["content"], info
    return None
