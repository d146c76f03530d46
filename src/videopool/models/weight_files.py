"""Files with weights: which files of a folder are read, and a one-line error for a file that cannot be read."""

import re
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from videopool.models.errors import ModelError, first_line, listed
from videopool.models.source import read_json

SAFETENSORS = "model.safetensors"
_POINTER = b"version https://git-lfs"
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.(?:safetensors|bin)$")


def no_pointers(paths: Iterable[Path], where: str) -> None:
    """Raises ModelError for a Git LFS pointer in place of a file."""
    for path in paths:
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(_POINTER):
            raise ModelError(
                f"{where}: {path} is a Git LFS pointer and not the file itself; fetch it with git lfs pull"
            )


def check_weights(folder: Path, where: str) -> None:
    """Open the weights that transformers will read. Raises ModelError, naming the file, if that fails."""
    index = folder / f"{SAFETENSORS}.index.json"
    no_pointers(sorted(folder.glob("*.json")) + sorted(folder.glob("*.model")), where)
    if (folder / SAFETENSORS).is_file():
        paths = [folder / SAFETENSORS]
    elif index.is_file():
        paths = indexed(index, where)
    else:
        others = listed(sorted(path.name for path in folder.glob("*.bin")))
        raise ModelError(
            f"{where}: {folder} has no {SAFETENSORS} and no {index.name}"
            + (f"; save {others} as safetensors (save_pretrained does)" if others else "")
        )
    for path in paths:
        shapes(path, where)


def indexed(index: Path, where: str) -> list[Path]:
    """The shards that an index names. Raises ModelError if one is missing, or if it is no index."""
    no_pointers([index], where)
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{where}: {index} has no weight_map from names of weights to files")
    paths = sorted({index.parent / name for name in names.values()})
    missing = [path.name for path in paths if path.parent != index.parent or not path.is_file()]
    if missing:
        raise ModelError(f"{where}: shards that {index} names are missing: {listed(missing)}")
    return paths


def all_shards(paths: list[Path], where: str) -> list[Path]:
    """The same paths. Raises ModelError if their names count shards and one is missing."""
    numbered = [match for match in map(_SHARD.search, (path.name for path in paths)) if match]
    count = max((int(match.group(2)) for match in numbered), default=0)
    missing = sorted(set(range(1, count + 1)) - {int(match.group(1)) for match in numbered})
    if missing:
        raise ModelError(f"{where}: of {count} shards {listed([str(number) for number in missing])} are missing")
    return paths


def shapes(path: Path, where: str) -> dict[str, tuple[int, ...]]:
    """Sizes of a file's tensors by name; the numbers stay on the disk. Raises ModelError for a file that is damaged."""
    no_pointers([path], where)
    try:
        if path.suffix != ".safetensors":
            return {name: tuple(value.shape) for name, value in _read(path, path.stat().st_mtime_ns).items()}
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # whatever the libraries raise for a broken file
        raise ModelError(f"{where}: {path} cannot be read ({first_line(error)})") from error


def tensor(path: Path, name: str) -> Tensor:
    """One tensor of a file that shapes() could read."""
    if path.suffix != ".safetensors":
        return _read(path, path.stat().st_mtime_ns)[name]
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def forget() -> None:
    """Drop the cached file."""
    _read.cache_clear()


@lru_cache(maxsize=1)
def _read(path: Path, _modified: int) -> Mapping[str, Tensor]:
    # Files of torch before 1.6 cannot be memory-mapped.
    content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, and no weights by name")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name!r} in it is a {type(value).__name__}, and no weight")
        if value.is_meta:
            raise ValueError(f"{name!r} in it has a size but no numbers (a meta tensor)")
    return content
