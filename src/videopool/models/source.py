"""Where a model's files are, and what they are.

A model is named by a folder, a Hugging Face id, or "videopool:<folder>" for one that comes with the package.
"""

import contextlib
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

from videopool.files import write_text
from videopool.models.errors import ModelError

PACKAGE_PREFIX = "videopool:"
SIDECAR = ".videopool-identity.json"
SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")
DOWNLOADED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
CONFIGURATION = ("config.json",)
SNAPSHOT = re.compile(r"/models--([^/]+)/snapshots/([0-9a-f]{40})$")  # in the hub's cache
PROBE_SECONDS = 5.0  # to find out whether the hub can be reached


def on_hub(source: str) -> bool:
    """Whether a source reads as a Hugging Face id, and not as a folder or as one of this package."""
    if source.startswith((PACKAGE_PREFIX, ".", "/", "~")) or source.count("/") != 1:
        return False
    return not Path(source).exists()


def locate(
    source: str, revision: str | None = None, key: str = "model.source", wanted: tuple[str, ...] = DOWNLOADED
) -> Path:
    """The folder of a model; a Hugging Face id is looked up in the local cache and fetched if it is not there.

    Args:
        source: folder, Hugging Face id, or "videopool:..." for a folder of this package.
        revision: commit or branch on the hub.
        key: the configuration key that errors name.
        wanted: patterns of the files to fetch.

    Raises:
        ModelError: a path that is no model folder, or a model that is neither cached nor within reach.
    """
    if source.startswith(PACKAGE_PREFIX):
        folder = Path(str(files("videopool").joinpath(source.removeprefix(PACKAGE_PREFIX))))
    elif on_hub(source):
        return _from_hub(source, revision, key, wanted)
    else:
        folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{key}={source}: {folder} is no folder")
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{key}={source}: {folder} holds no config.json, so it is no model folder")
    return folder


def _from_hub(source: str, revision: str | None, key: str, wanted: tuple[str, ...]) -> Path:
    """A snapshot of a hub repository: the cached one if it is whole, else a download if the hub answers."""
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def snapshot(offline: bool) -> Path:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(wanted), local_files_only=offline))

    try:
        cached = snapshot(offline=True)
        if wanted == CONFIGURATION and (cached / CONFIGURATION[0]).is_file():
            return cached
        if wanted != CONFIGURATION and _whole(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelError(f"{key}={source}: neither a folder nor a Hugging Face id ({_first_line(error)})") from error
    advice = f"fetch it where there is a network (hf download {source}) or name a folder with {key}=..."
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{key}={source}: not in the local cache, and HF_HUB_OFFLINE is set; {advice}")
    try:
        # The hub's own client retries for half a minute before it says that there is no network.
        httpx.head(constants.ENDPOINT, timeout=PROBE_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        raise ModelError(
            f"{key}={source}: not in the local cache, and {constants.ENDPOINT} cannot be reached; {advice}"
        ) from error
    try:
        return snapshot(offline=False)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, httpx.HTTPError) as error:
        raise ModelError(f"{key}={source}: cannot be fetched ({_first_line(error)})") from error


def _whole(folder: Path) -> bool:
    """Whether a cached snapshot has weights, and every shard that its index names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return all((folder / name).is_file() for name in set(json.loads(index.read_text())["weight_map"].values()))
    return any(folder.glob("*.safetensors"))


def identity(source: str, revision: str | None = None, key: str = "model.source", target: str | None = None) -> str:
    """What determines a model's numbers: a content hash of a folder's files, or id and commit on the hub.

    Hashes are kept in the process, those of large files beside them too (unless that folder is read-only), and
    are trusted as long as names, sizes and times of change stay the same.

    Args:
        source, revision, key: as locate() takes them.
        target: the user's class for the family, which is part of it.

    Raises:
        ModelError: as locate().
    """
    if target is not None:
        return f"{identity(source, revision, key)} read by {target}"
    folder = locate(source, revision, key)
    listed = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.name != SIDECAR)
    # What the hub's client has fetched links to files that are named by their content.
    if (match := SNAPSHOT.search(folder.absolute().as_posix())) and all(path.is_symlink() for path in listed):
        return f"{match.group(1).replace('--', '/')}@{match.group(2)}"
    state: list[list[str | int]] = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in listed]
    before = _hashed.get(folder)
    if before is not None and before[0] == state:
        return before[1]
    value = _content_hash(folder, listed, state)
    _hashed[folder] = (state, value)
    return value


_hashed: dict[Path, tuple[list[list[str | int]], str]] = {}  # by folder: state of its files, and their hash


def _content_hash(folder: Path, listed: list[Path], state: list[list[str | int]]) -> str:
    """SHA-256 of files, as it was kept beside them or computed now."""
    sidecar = folder / SIDECAR
    try:
        kept = json.loads(sidecar.read_text())
        if kept["files"] == state:
            return str(kept["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = hashlib.sha256()
    for path in listed:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    value = digest.hexdigest()
    if sum(p.stat().st_size for p in listed) > 1 << 28:
        with contextlib.suppress(OSError):  # a read-only folder: hash again next time
            write_text(sidecar, json.dumps({"files": state, "sha256": value}))
    return value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
