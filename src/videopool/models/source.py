"""Where a model's files are, and the hash or commit that identifies them.

A model is named by a folder, a Hugging Face id, or "videopool:<folder>" for one that comes with the package.
"""

import contextlib
import hashlib
import json
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from videopool.files import write_text
from videopool.models.errors import ModelError, first_line

PACKAGE_PREFIX = "videopool:"
SIDECAR = ".videopool-identity.json"
SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")
DOWNLOADED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
CONFIGURATION = ("config.json",)
SNAPSHOT = re.compile(r"/models--([^/]+)/snapshots/([0-9a-f]{40})$")  # in the hub's cache
PROBE_SECONDS = 5.0  # timeout of the request that checks whether the hub can be reached


def on_hub(source: str) -> bool:
    """Whether a source reads as a Hugging Face id, and not as a folder or a model of this package."""
    if source.startswith((PACKAGE_PREFIX, ".", "/", "~")) or source.count("/") != 1:
        return False
    return not Path(source).exists()


def locate(
    source: str, revision: str | None = None, key: str = "model.source", wanted: tuple[str, ...] = DOWNLOADED
) -> Path:
    """The folder of a model; a Hugging Face id is taken from the local cache, or fetched.

    Args:
        source, revision: as in load_backbone().
        key: the configuration key that errors name.
        wanted: patterns of the files to fetch.

    Raises:
        ModelError: the path is no model folder, or the model is neither cached nor reachable.
    """
    if on_hub(source):
        return _from_hub(source, revision, key, wanted)
    if source.startswith(PACKAGE_PREFIX):
        folder = Path(str(files("videopool").joinpath(source.removeprefix(PACKAGE_PREFIX))))
    else:
        folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{key}={source}: {folder} is no folder")
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{key}={source}: {folder} holds no config.json, so it is no model folder")
    return folder


def _from_hub(source: str, revision: str | None, key: str, wanted: tuple[str, ...]) -> Path:
    """The snapshot of a hub repository: the cached one if it is complete, else a download if the hub answers."""
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def refused(reason: str) -> ModelError:
        return ModelError(f"{key}={source}: {reason}")

    def snapshot(offline: bool) -> Path:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(wanted), local_files_only=offline))

    try:
        cached = snapshot(offline=True)
        if (cached / CONFIGURATION[0]).is_file() if wanted == CONFIGURATION else _complete(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise refused(f"neither a folder nor a Hugging Face id ({first_line(error)})") from error
    advice = f"fetch it where there is a network (hf download {source}) or name a folder with {key}=..."
    if constants.HF_HUB_OFFLINE:
        raise refused(f"not in the local cache, and HF_HUB_OFFLINE is set; {advice}")
    try:
        # The hub's own client retries for half a minute before it reports that there is no network.
        httpx.head(constants.ENDPOINT, timeout=PROBE_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        raise refused(f"not in the local cache, and {constants.ENDPOINT} cannot be reached; {advice}") from error
    try:
        return snapshot(offline=False)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, httpx.HTTPError) as error:
        raise refused(f"cannot be fetched ({first_line(error)})") from error


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
        raise ModelError(f"{path}: {first_line(error)}") from error
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
