"""One file of the store on disk: views of one clip that were encoded together.

`<code>.<code>...-<12 random digits>.safetensors` holds one tensor [C + H*W, Dv] per view, named by the view's code. The
metadata describe the tensors and hold a CRC-32 of each, over source, content hash, view, dtype, shape and bytes, so
that features in the wrong place do not pass. A segment is written once and never changed. Its name lists its views, so
that a listing of the folder suffices to find them.
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

from videopool.features.source import View, view_code
from videopool.files import whole
from videopool.locks import claim

FORMAT = "1"
SUFFIX, DAMAGED, UNFINISHED = ".safetensors", ".damaged", ".tmp"
LONGEST = 108  # characters of codes in a name; some file systems allow 143 in all


class DamagedSegment(Exception):
    """A segment's content is not as it was written."""


def grouped(features: Mapping[View, Tensor]) -> Iterator[dict[View, Tensor]]:
    """Views of a clip by segment, as many in each as fit its name."""
    group: dict[View, Tensor] = {}
    length = 0
    for view, values in features.items():
        length += len(view_code(view)) + 1
        if length > LONGEST and group:
            yield group
            group, length = {}, len(view_code(view)) + 1
        group[view] = values
    if group:
        yield group


def codes_of(name: str) -> list[str]:
    """Codes of the views in a segment of this name; none for other files."""
    return name.partition("-")[0].split(".") if name.endswith(SUFFIX) else []


def pack(source: str, content: str, features: Mapping[View, Tensor]) -> bytes:
    """The bytes of a segment, from hashes of source and clip and features of one shape and dtype."""
    tensors = {view_code(view): values.contiguous() for view, values in features.items()}
    checksums = {code: _checksum(source, content, code, values) for code, values in tensors.items()}
    metadata = {
        "format": FORMAT,
        "source": source,
        "content": content,
        "views": json.dumps({view_code(view): view for view in features}),
        "checksums": json.dumps(checksums),
    }
    return save(tensors, metadata)


def _checksum(source: str, content: str, code: str, features: Tensor) -> int:
    label = " ".join([FORMAT, source, content, code, str(features.dtype), *map(str, features.shape)])
    return zlib.crc32(features.view(uint8).numpy().data, zlib.crc32(label.encode()))


class Segment:
    """An opened segment of a source (the first digits of its hash) and clip; mapped, it stays readable after an unlink.

    Raises DamagedSegment if it is no intact segment of these, and FileNotFoundError if it is gone.
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
                raise ValueError("of another source or clip")
            if list(self._views) != codes_of(path.name):
                raise ValueError("its name lists other views")

    def tensor(self, code: str, verify: bool) -> Tensor:
        """A view's features [C + H*W, Dv], mapped from the file; `verify` compares the checksum, which reads all bytes.

        Raises as the class.
        """
        with _reading(self.path):
            features = self._file.get_tensor(code)
            view, checksum = self._views[code], self._checksums[code]
            if view_code(tuple(view) if isinstance(view, list) else view) != code:
                raise ValueError("a view does not match its code")
            if verify and _checksum(self._source, self._content, code, features) != checksum:
                raise ValueError("the checksum differs")
        return features


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if not path.exists():  # safetensors opens a file more than once; another process may evict it in between
            raise FileNotFoundError(errno.ENOENT, "evicted", str(path)) from error
        raise DamagedSegment(f"{path}: {error or type(error).__name__}") from error


def write_whole(path: Path, content: bytes, fsync: bool = True) -> None:
    """Write a file whole or not at all, with fsync before the rename; makes its folders.

    Raises OSError if it cannot be written, and leaves nothing behind.
    """
    part = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
    for attempt in range(3):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole(path, fsync, part), part.open("xb") as file:
                claim(file.fileno())  # marks a living writer, see upkeep.prune
                file.write(content)
            return
        except FileNotFoundError:  # another process removed the empty folder in between
            if attempt == 2:
                raise
