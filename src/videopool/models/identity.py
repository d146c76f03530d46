"""Where a model's files are, and what they are.

A model is named by a Hugging Face id, a folder, or "videopool:<folder>" for one that comes with the package.
"""

import hashlib
import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path

from videopool.models.errors import ModelError

PACKAGE_PREFIX = "videopool:"
SIDECAR = ".videopool-identity.json"
SUFFIXES = (".safetensors", ".json", ".model", ".txt")


def locate(source: str) -> Path | None:
    """The folder of a model, or None for a Hugging Face id.

    Raises:
        ModelError: a path that is no model folder.
    """
    if source.startswith(PACKAGE_PREFIX):
        folder = Path(str(files("videopool").joinpath(source.removeprefix(PACKAGE_PREFIX))))
    elif Path(source).exists() or source.startswith((".", "/", "~")):
        folder = Path(source).expanduser()
    else:
        return None
    if not folder.is_dir():
        raise ModelError(f"model.source={source}: {folder} is no folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.source={source}: {folder} holds no config.json, so it is no model folder")
    return folder


def identity(source: str, revision: str | None = None) -> str:
    """What determines a model's numbers: a content hash of a folder's files, or id and commit on the hub.

    Hashes of large files are kept beside them (or, where that folder is read-only, recomputed), and are
    trusted as long as names, sizes and times of change stay the same.

    Raises:
        ModelError: a path that is no model folder.
    """
    folder = locate(source)
    if folder is None:
        return f"{source}@{_hub_commit(source, revision)}"
    listed = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.name != SIDECAR)
    state = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in listed]
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
        _keep(sidecar, {"files": state, "sha256": value})
    return value


def _keep(path: Path, content: dict[str, object]) -> None:
    try:
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        os.replace(part, path)
    except OSError:
        pass  # a read-only folder: hash again next time


def _hub_commit(source: str, revision: str | None) -> str:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_id == source]
    except CacheNotFound:
        repos = []
    for repo in repos:
        for cached in repo.revisions:
            if revision in (None, cached.commit_hash) and (revision or "main" in cached.refs):
                return cached.commit_hash
            if revision in cached.refs:
                return cached.commit_hash
    return revision or "main"
