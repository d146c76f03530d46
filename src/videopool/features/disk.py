"""Features on disk, shared by processes and runs: a view is encoded once.

<root>/v1/<source, 16 digits>/source.json                                   what the source is, in words
<root>/v1/<source>/<content, 2 digits>/<content>/<segment>.safetensors      views of one clip
<root>/v1/clips/...                                                         what is known of clips
"""

import json
import os
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from videopool.features.clips import FOLDER, ClipRecords
from videopool.features.errors import DamagedSegmentError, FeatureStoreError
from videopool.features.rounding import DTYPES, check_dtype, finite, round_features
from videopool.features.segment import DAMAGED, Segment, codes_of, grouped, pack, segment_name, write_whole
from videopool.features.source import OWN, ClipKey, FrameSource, View, source_hash, source_words, view_code
from videopool.features.space import Space
from videopool.features.store import ClipState, FeatureStore
from videopool.files import set_aside
from videopool.video import ClipInfo

VERSION = "v1"
SOURCE = "source.json"
UNDER_WAY = 4  # clips that may wait to be written


class DiskStore(FeatureStore):
    """Keeps features in files below a folder, which is made when the first are kept.

    Any number of processes and threads may use one folder. Writing is done by a thread of its own. What cannot
    be written or read is computed; the lines of finish() say so.

    Args:
        root: the folder.
        limit_bytes: of all files together; segments that were used least recently go first.
        dtype: "float16", "bfloat16" or "float32"; None to keep the model's own.

    Raises:
        FeatureStoreError: no such dtype, or no such limit.
    """

    def __init__(self, root: str | Path, limit_bytes: int, dtype: str | None = "float16") -> None:
        if isinstance(limit_bytes, bool) or not isinstance(limit_bytes, int) or limit_bytes < 0:
            raise FeatureStoreError(f"features.limit_bytes={limit_bytes}: give a whole number of bytes")
        self.dtype = check_dtype(dtype)
        self.root, self.limit_bytes = Path(root), limit_bytes
        self._top = self.root / VERSION
        self._space = Space(self._top, limit_bytes)
        self._records = ClipRecords(self._top / FOLDER)
        self._start()
        self._sources: dict[FrameSource, tuple[str, Path]] = {}
        self._verified: dict[str, set[str]] = defaultdict(set)
        self._touched: set[Path] = set()
        self._bad: set[str] = set()
        self._named: set[FrameSource] = set()
        self._writable = True
        self._damaged = 0
        self._notes: dict[str, str] = {}  # by what went wrong, so that each is said once

    def _start(self) -> None:
        """Lock and writer of this process."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._writer: ThreadPoolExecutor | None = None
        self._writes: dict[Future[None], ClipKey] = {}

    def _here(self) -> threading.RLock:
        """The lock; a process that was forked gets its own, and its own writer."""
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
                found = self._collect(clip, views, listed)
                damaged = {view for view in views if not self._bad.isdisjoint(listed.get(view_code(view), ()))}
                if not damaged:
                    break
                lost |= damaged  # the segment was set aside, and all its views with it
            self._damaged += len(lost - found.keys())
            return found

    def put(self, clip: ClipKey, features: Mapping[View, Tensor]) -> dict[View, Tensor]:
        rounded = round_features(features, self.dtype)
        for one in rounded.values():
            if tuple(one.shape) != clip.source.shape:
                raise ValueError(f"features of shape {tuple(one.shape)} from a source of {clip.source.shape}")
        if self._writable and all(map(finite, rounded.values())):
            with self._here():
                self._submit(clip, rounded)
        return rounded

    def clip(self, state: ClipState) -> tuple[str, ClipInfo] | None:
        return self._records.get(state)

    def remember(self, state: ClipState, content: str, info: ClipInfo) -> None:
        if self._writable:
            try:
                self._records.put(state, content, info)
            except OSError as error:
                self._stop_writing(error)

    def finish(self) -> list[str]:
        with self._here():
            self._wait_for(None)
            if self._writer is not None:
                self._writer.shutdown()  # no thread of ours is there when loader processes are forked
                self._writer = None
            lines = list(self._notes.values())
            if self._damaged:
                entries = "entry" if self._damaged == 1 else "entries"
                lines.append(
                    f"{self._damaged} damaged {entries} recomputed (set aside as *{DAMAGED} below {self._top})"
                )
            self._notes.clear()
            self._damaged = 0
            return [f"feature store: {line}" for line in lines]

    # Reading

    def _source(self, source: FrameSource) -> tuple[str, Path]:
        """Hash and folder of a source."""
        if source not in self._sources:
            digits = source_hash(source, self.dtype or OWN)
            self._sources[source] = (digits, self._top / digits[:16])
        return self._sources[source]

    def _folder(self, clip: ClipKey) -> Path:
        return self._source(clip.source)[1] / clip.content[:2] / clip.content

    def _list(self, clip: ClipKey) -> dict[str, list[str]]:
        """Names of segments by code of a view, from the folder as it is now."""
        listed: dict[str, list[str]] = {}
        try:
            names = os.listdir(self._folder(clip))
        except OSError:
            names = []
        for name in sorted(set(names) - self._bad):
            for code in codes_of(name):
                listed.setdefault(code, []).append(name)
        return listed

    def _collect(self, clip: ClipKey, views: Sequence[View], listed: dict[str, list[str]]) -> dict[View, Tensor]:
        """Views from the segments that are listed; segments that turn out to be damaged are set aside."""
        opened: dict[str, Segment | None] = {}
        found: dict[View, Tensor] = {}
        for view in dict.fromkeys(views):
            for name in listed.get(view_code(view), ()):
                if name not in opened:
                    opened[name] = self._open(clip, name)
                features = self._read(clip, opened[name], view)
                if features is not None:
                    found[view] = features
                    break
        return found

    def _open(self, clip: ClipKey, name: str) -> Segment | None:
        try:
            return Segment(self._folder(clip) / name, self._source(clip.source)[0], clip.content)
        except FileNotFoundError:  # another process made room
            return None
        except DamagedSegmentError:
            self._set_aside(clip, name)
            return None

    def _read(self, clip: ClipKey, segment: Segment | None, view: View) -> Tensor | None:
        if segment is None or segment.path.name in self._bad:
            return None
        code, verified = view_code(view), self._verified[segment.path.name]
        try:
            features = segment.tensor(code, verify=code not in verified)
        except DamagedSegmentError:
            self._set_aside(clip, segment.path.name)
            return None
        except FileNotFoundError:  # another process made room
            return None
        dtype = features.dtype if self.dtype is None else DTYPES[self.dtype]
        if (tuple(features.shape), features.dtype) != (clip.source.shape, dtype):
            self._set_aside(clip, segment.path.name)
            return None
        verified.add(code)
        self._touch(segment.path)
        return features

    def _touch(self, path: Path) -> None:
        """Record that a segment was used, once in a process."""
        if path not in self._touched:
            self._touched.add(path)
            try:
                os.utime(path)
            except OSError:
                pass  # read-only, or gone: whoever reads it will see

    def _set_aside(self, clip: ClipKey, name: str) -> None:
        self._bad.add(name)
        set_aside(self._folder(clip) / name, DAMAGED)

    # Writing

    def _submit(self, clip: ClipKey, features: dict[View, Tensor]) -> None:
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "features")
        while len(self._writes) >= UNDER_WAY:
            self._settle(next(iter(self._writes)))
        self._writes[self._writer.submit(self._write, clip, features)] = clip

    def _wait_for(self, clip: ClipKey | None) -> None:
        """Until nothing of a clip is under way; None for all clips."""
        for write in [write for write, written in self._writes.items() if clip in (None, written)]:
            self._settle(write)

    def _settle(self, write: Future[None]) -> None:
        del self._writes[write]
        write.result()

    def _write(self, clip: ClipKey, features: Mapping[View, Tensor]) -> None:
        """In the writer's thread, which takes no lock that others hold while they wait for it."""
        folder = self._folder(clip)
        try:
            names = os.listdir(folder) if folder.is_dir() else []
            kept = {code for name in set(names) - self._bad for code in codes_of(name)}
            fresh = {view: one for view, one in features.items() if view_code(view) not in kept}
            size = sum(one.nbytes for one in fresh.values())
            if size > self.limit_bytes:
                self._notes["too large"] = (
                    f"a clip's features ({size / 1e6:.3g} MB) do not fit features.limit_bytes={self.limit_bytes}: "
                    "not kept"
                )
                return
            for group in grouped(fresh):
                if not self._writable:
                    return
                content = pack(self._source(clip.source)[0], clip.content, group)
                self._space.make_room(len(content))
                self._name(clip.source)
                write_whole(folder / segment_name(group), content)
        except OSError as error:
            self._stop_writing(error)

    def _name(self, source: FrameSource) -> None:
        """Say beside a source's features what the source is."""
        _, folder = self._source(source)
        if source not in self._named and not (folder / SOURCE).exists():
            write_whole(folder / SOURCE, json.dumps(source_words(source, self.dtype or OWN), indent=1).encode())
        self._named.add(source)

    def _stop_writing(self, error: OSError) -> None:
        self._writable = False
        self._notes["stopped"] = f"{self.root} cannot be written ({error.strerror or error}): nothing more is kept"
