"""One file of the store on disk: views of one clip that were encoded together.

`<code>.<code>...-<12 random digits>.safetensors` holds one tensor [C + H*W, Dv] a view, named by the view's
code, and as metadata what the tensors are and a CRC-32 of each. The CRC also covers source, content hash,
view, dtype and shape, so that features found in the wrong place do not pass. A segment is written once and
never changed; its name says what it holds, so that nothing is opened to find that out.
"""

import contextlib
import errno
import json
import secrets
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from videopool.features.errors import DamagedSegmentError
from videopool.features.source import View, view_code
from videopool.files import whole
from videopool.locks import claim

FORMAT = "1"
SUFFIX, DAMAGED, UNFINISHED = ".safetensors", ".damaged", ".tmp"
LONGEST = 108  # characters of codes in a name; some file systems allow 143 in all


def grouped(features: Mapping[View, Tensor]) -> Iterator[dict[View, Tensor]]:
    """Views of a clip by segment: as many in each as its name can tell."""
    group: dict[View, Tensor] = {}
    length = 0
    for view, one in features.items():
        length += len(view_code(view)) + 1
        if length > LONGEST and group:
            yield group
            group, length = {}, len(view_code(view)) + 1
        group[view] = one
    if group:
        yield group


def segment_name(views: Mapping[View, Tensor]) -> str:
    """A new name for a segment of some views."""
    return ".".join(map(view_code, views)) + f"-{secrets.token_hex(6)}{SUFFIX}"


def codes_of(name: str) -> list[str]:
    """Codes of the views that a segment of this name holds; none for other files."""
    return name.partition("-")[0].split(".") if name.endswith(SUFFIX) else []


def pack(source: str, content: str, features: Mapping[View, Tensor]) -> bytes:
    """The bytes of a segment.

    Args:
        source: hash of the source.
        content: hash of the clip.
        features: by view, all of one shape and dtype.
    """
    tensors = {view_code(view): one.contiguous() for view, one in features.items()}
    labels = {code: _label(source, content, code, one) for code, one in tensors.items()}
    metadata = {
        "format": FORMAT,
        "source": source,
        "content": content,
        "views": json.dumps({view_code(view): view for view in features}),
        "checksums": json.dumps({code: _checksum(labels[code], one) for code, one in tensors.items()}),
    }
    return save(tensors, metadata)


def _label(source: str, content: str, code: str, features: Tensor) -> str:
    return " ".join([FORMAT, source, content, code, str(features.dtype), *map(str, features.shape)])


def _checksum(label: str, features: Tensor) -> int:
    return zlib.crc32(features.view(uint8).numpy().data, zlib.crc32(label.encode()))


class Segment:
    """An opened segment; its tensors are mapped from the file, which may be unlinked meanwhile.

    Args:
        path: of the file.
        source, content: hashes that it should have been written with; source may be the first digits alone.

    Raises:
        DamagedSegmentError: it is no whole segment of this source, clip and format.
        FileNotFoundError: it is gone.
    """

    def __init__(self, path: Path, source: str, content: str) -> None:
        self.path = path
        with _reading(path):
            self._file = safe_open(path, "pt")
            metadata = self._file.metadata() or {}
            if metadata["format"] != FORMAT:
                raise ValueError(f"format {metadata['format']}, not {FORMAT}")
            self._views: dict[str, Any] = json.loads(metadata["views"])
            self._checksums: dict[str, int] = json.loads(metadata["checksums"])
            self._source, self._content = metadata["source"], metadata["content"]
        if not self._source.startswith(source) or self._content != content:
            raise DamagedSegmentError(f"{path}: of another source or clip")
        if list(self._views) != codes_of(path.name):
            raise DamagedSegmentError(f"{path}: holds other views than its name says")

    def tensor(self, code: str, verify: bool) -> Tensor:
        """A view's features [C + H*W, Dv], mapped from the file.

        Args:
            code: of the view.
            verify: compare the checksum, which reads all of it.

        Raises:
            DamagedSegmentError: the checksum or the view differs, or there is no such view.
            FileNotFoundError: it is gone.
        """
        with _reading(self.path):
            features = self._file.get_tensor(code)
            view, checksum = self._views[code], self._checksums[code]
            if view_code(tuple(view) if isinstance(view, list) else view) != code:
                raise ValueError("another view than its code says")
            if verify and _checksum(_label(self._source, self._content, code, features), features) != checksum:
                raise ValueError("the checksum differs")
        return features


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if not path.exists():  # it was there a moment ago: what reads it opens it more than once
            raise FileNotFoundError(errno.ENOENT, "made room for others", str(path)) from error
        raise DamagedSegmentError(f"{path}: {error or type(error).__name__}") from error


def write_whole(path: Path, content: bytes, fsync: bool = True) -> None:
    """Write a file whole or not at all; folders are made.

    Args:
        path: of the file.
        content: its bytes.
        fsync: wait until the bytes are on the disk before the file gets its name.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    part = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
    for attempt in range(3):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole(path, fsync, part), part.open("xb") as file:
                claim(file.fileno())  # what is claimed has a living writer
                file.write(content)
            return
        except FileNotFoundError:  # the empty folder was removed by another process in between
            if attempt == 2:
                raise
