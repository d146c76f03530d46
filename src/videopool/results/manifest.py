"""What a run's manifest says about where and how it ran. None of it is identity."""

import os
import platform
import resource
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = (
    "videopool", "torch", "transformers", "pytorch-lightning", "hydra-core", "av", "decord", "numpy",
    "pillow", "peft",
)  # fmt: skip


@cache
def git_state() -> dict[str, object]:
    """Commit and dirty flag of the checkout that the code runs from; empty outside one.

    A repository that does not hold this very file, as one with the environment in it that the package is installed
    in, is somebody else's. Looked up once a process, as the code that runs is what was imported.
    """
    own = Path(__file__)
    # A hook or a shell may have set these for another repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "-C", str(own.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout

    try:
        git("ls-files", "--error-unmatch", own.name)
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    except (OSError, subprocess.CalledProcessError):
        return {}


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that matter; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def hardware() -> dict[str, object]:
    """Processor, cores and accelerator."""
    found: dict[str, object] = {
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
