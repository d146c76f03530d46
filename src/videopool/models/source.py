"""A model's files: where they are, the hash or commit that identifies them, and what their weights hold.

A model is named by a folder, a Hugging Face id, or "videopool:<folder>" for one that comes with the package.
"""

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from videopool.errors import one_line
from videopool.files import write_text
from videopool.models.errors import ModelError, listed

PACKAGE_PREFIX = "videopool:"
SIDECAR = ".videopool-identity.json"
SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")
DOWNLOADED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
CONFIGURATION = ("config.json",)
ADAPTER_CONFIG = "adapter_config.json"  # peft's
SNAPSHOT = re.compile(r"/models--([^/]+)/snapshots/([0-9a-f]{40})$")  # in the hub's cache
SAFETENSORS = "model.safetensors"
_POINTER = b"version https://git-lfs"
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.(?:safetensors|bin)$")
PROBE_SECONDS = 5.0  # timeout of the request that checks whether the hub can be reached


def on_hub(source: str) -> bool:
    """Whether a source reads as a Hugging Face id, and not as a folder or a model of this package."""
    if source.startswith((PACKAGE_PREFIX, ".", "/", "~")) or source.count("/") != 1:
        return False
    return not Path(source).exists()


def locate(
    source: str, revision: str | None = None, key: str = "model.source", wanted: tuple[str, ...] = DOWNLOADED
) -> Path:
    """The folder of a model; of a Hugging Face id, the wanted files are taken from the local cache, or fetched.

    Errors name the configuration key. Raises ModelError if the path is no model folder, the model is neither cached nor
    reachable, or it is an adapter where a base is asked for.
    """
    if on_hub(source):
        folder = _from_hub(source, revision, key, wanted)
    else:
        if source.startswith(PACKAGE_PREFIX):
            folder = Path(str(files("videopool").joinpath(source.removeprefix(PACKAGE_PREFIX))))
        else:
            folder = Path(source).expanduser()
        if not folder.is_dir():
            raise ModelError(f"{key}={source}: {folder} is no folder")
        if not (folder / "config.json").is_file() and not (folder / ADAPTER_CONFIG).is_file():
            raise ModelError(f"{key}={source}: {folder} holds no config.json, so it is no model folder")
    # Of an adapter, transformers would load the base that it names, wherever that is.
    if key == "model.source" and (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{key}={source}: {folder} is an adapter ({ADAPTER_CONFIG}); give its base as model.source and the folder "
            "as lora.checkpoint"
        )
    return folder


def _from_hub(source: str, revision: str | None, key: str, wanted: tuple[str, ...]) -> Path:
    """The snapshot of a hub repository: the cached one if it is complete, else a download if the hub answers."""
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"{key}={source}"
    snapshot = partial(snapshot_download, source, revision=revision, allow_patterns=list(wanted))
    try:
        cached = Path(snapshot(local_files_only=True))
        if (cached / CONFIGURATION[0]).is_file() if wanted == CONFIGURATION else _complete(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelError(f"{where}: neither a folder nor a Hugging Face id ({one_line(error)})") from error
    advice = f"fetch it where there is a network (hf download {source}) or name a folder with {key}=..."
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{where}: not in the local cache, and HF_HUB_OFFLINE is set; {advice}")
    try:
        # The hub's own client retries for half a minute before it reports that there is no network.
        httpx.head(constants.ENDPOINT, timeout=PROBE_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        reason = f"not in the local cache, and {constants.ENDPOINT} cannot be reached"
        raise ModelError(f"{where}: {reason}; {advice}") from error
    try:
        return Path(snapshot())
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, httpx.HTTPError) as error:
        raise ModelError(f"{where}: cannot be fetched ({one_line(error)})") from error


def _complete(folder: Path) -> bool:
    """Whether a cached snapshot has weights, and every shard that its index names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return all((folder / name).is_file() for name in set(json.loads(index.read_text())["weight_map"].values()))
    return any(folder.glob("*.safetensors"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object beside a model's weights. Raises ModelError if it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: no JSON object")
    return content


def identity(source: str, revision: str | None = None, key: str = "model.source", target: str | None = None) -> str:
    """The identity of a model's weights: a content hash of a folder's files, or id and commit on the hub.

    The process caches hashes; for large files the folder does too, unless it is read-only. A cached hash holds as long
    as names, sizes and modification times stay the same. A user's class (target) becomes part of the identity.
    Arguments and errors are those of locate().
    """
    if target is not None:
        return f"{identity(source, revision, key)} read by {target}"
    folder = locate(source, revision, key)
    paths = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.name != SIDECAR)
    # The hub's client makes links to files that are named by their content.
    if (match := SNAPSHOT.search(folder.absolute().as_posix())) and all(path.is_symlink() for path in paths):
        return f"{match.group(1).replace('--', '/')}@{match.group(2)}"
    return _content_hash(folder, tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths))


@lru_cache(maxsize=64)
def _content_hash(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    """SHA-256 of files by name, size and modification time: kept beside them, or computed now."""
    sidecar, stated = folder / SIDECAR, [list(file) for file in state]
    try:
        kept = json.loads(sidecar.read_text())
        if kept["files"] == stated:
            return str(kept["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = hashlib.sha256()
    for name, size, _ in state:
        digest.update(f"{name}\0{size}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    if sum(size for _, size, _ in state) > 1 << 28:
        with contextlib.suppress(OSError):  # a read-only folder: hash again next time
            write_text(sidecar, json.dumps({"files": stated, "sha256": digest.hexdigest()}))
    return digest.hexdigest()


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
        sizes_in(path, where)


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


def sizes_in(path: Path, where: str) -> dict[str, tuple[int, ...]]:
    """Sizes of a file's tensors by name; the numbers stay on the disk. Raises ModelError for a file that is damaged."""
    no_pointers([path], where)
    try:
        if path.suffix != ".safetensors":
            return {name: tuple(value.shape) for name, value in _content(path, path.stat().st_mtime_ns).items()}
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # whatever the libraries raise for a broken file
        raise ModelError(f"{where}: {path} cannot be read ({one_line(error)})") from error


def tensor_in(path: Path, name: str) -> Tensor:
    """One tensor of a file that sizes_in() could read."""
    if path.suffix != ".safetensors":
        return _content(path, path.stat().st_mtime_ns)[name]
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def forget_weights() -> None:
    """Drop the cached file."""
    _content.cache_clear()


@lru_cache(maxsize=1)
def _content(path: Path, _modified: int) -> Mapping[str, Tensor]:
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
