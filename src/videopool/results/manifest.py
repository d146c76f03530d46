"""Where and how a point ran, for its manifest. None of it is identity."""

import contextlib
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
    "videopool", "torch", "transformers", "pytorch-lightning", "hydra-core", "av", "decord", "numpy", "pillow", "peft",
)  # fmt: skip


@cache
def git_state() -> dict[str, object]:
    """Commit and dirty flag of the checkout that this process imported its code from; empty outside one.

    A repository that does not track this file belongs to somebody else: it may hold just the virtual environment.
    """
    own = Path(__file__)
    # A hook or a shell may have set GIT_DIR and others for another repository.
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
    """Versions of Python and the installed packages."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


@cache
def hardware() -> dict[str, object]:
    """Processor, cores and accelerator."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "host": platform.node(), "platform": platform.platform(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), **gpu,
    }  # fmt: skip


def watch_memory() -> None:
    """Begin to record peaks of memory anew."""
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak since the process began
        Path("/proc/self/clear_refs").write_text("5")
    for device in _devices():
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory() -> dict[str, int]:
    """Peaks in bytes since watch_memory(): this process's resident set size, and with GPUs the most that its tensors
    took on one device, and that was reserved there for them.
    """
    peaks = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if devices := _devices():
        peaks["device_peak_bytes"] = max(map(torch.cuda.max_memory_allocated, devices))
        peaks["device_reserved_bytes"] = max(map(torch.cuda.max_memory_reserved, devices))
    return peaks


def _devices() -> range:
    """GPUs, once this process uses them."""
    return range(torch.cuda.device_count() if torch.cuda.is_available() and torch.cuda.is_initialized() else 0)


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
