"""A measurement on disk.

norms.json               numbers, and what each means
norms.safetensors        histograms, maps, profiles, by "<stage>/<array>"
.norms-partial           an unfinished measurement: all sums so far, and which clips they are of
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from videopool.files import whole
from videopool.norms.errors import NormsError
from videopool.norms.measurement import Measurement

NUMBERS, ARRAYS, PARTIAL = "norms.json", "norms.safetensors", ".norms-partial"


@dataclass
class Progress:
    """Which clips a measurement holds.

    Attributes:
        done: content hashes of clips, by name.
        failed: why other clips could not be used, by name.
    """

    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def _write(path: Path, arrays: Mapping[str, np.ndarray], words: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all. Raises NormsError if it cannot be written."""
    try:
        with whole(path) as part:
            save_file({k: np.array(v, order="C") for k, v in arrays.items()}, part, dict(words or {}))
    except (OSError, SafetensorError) as error:
        raise NormsError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def save_partial(folder: Path, measured: Measurement, progress: Progress) -> None:
    """Keep an unfinished measurement. Raises NormsError if it cannot be written."""
    words = {"done": json.dumps(progress.done), "failed": json.dumps(progress.failed)}
    _write(folder / PARTIAL, measured.state(), words)


def load_partial(folder: Path, measured: Measurement) -> Progress:
    """Fill a measurement with what an unfinished one has; with nothing where there is none.

    Clips that failed are not among those that are done: they are tried again.

    Raises:
        NormsError: the file cannot be read, or holds another measurement.
    """
    path = folder / PARTIAL
    if not path.exists():
        return Progress()
    try:
        with safe_open(path, "np") as file:
            words = file.metadata()
        measured.load(load_file(path))
        return Progress(dict(json.loads(words["done"])))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise NormsError(f"{path} cannot be read ({error}): say force=true to begin anew") from error


def measured_contents(folder: Path) -> dict[str, str]:
    """Content hashes of the clips that a measurement holds, finished or not, by name."""
    try:
        if (folder / PARTIAL).exists():
            with safe_open(folder / PARTIAL, "np") as file:
                return dict(json.loads(file.metadata()["done"]))
        return dict(json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["contents"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return {}


def forget(folder: Path) -> None:
    """Remove a measurement, finished or not."""
    for name in (NUMBERS, ARRAYS, PARTIAL):
        (folder / name).unlink(missing_ok=True)


def save_arrays(folder: Path, measured: Measurement) -> None:
    """Write norms.safetensors. Raises NormsError if it cannot be written."""
    _write(folder / ARRAYS, measured.arrays())


@dataclass(frozen=True)
class SavedNorms:
    """A finished measurement.

    Attributes:
        folder: of its point.
        numbers: of norms.json.
        arrays: of norms.safetensors, by stage (or "attention.<layer>") and name.
    """

    folder: Path
    numbers: dict[str, Any]
    arrays: dict[str, dict[str, np.ndarray]]


def load_norms(folder: str | Path) -> SavedNorms:
    """Read a finished measurement. Raises NormsError if there is none, or it is damaged."""
    folder = Path(folder)
    try:
        numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        flat = load_file(folder / ARRAYS)
    except (OSError, ValueError, SafetensorError) as error:
        raise NormsError(f"{folder} holds no whole {NUMBERS} and {ARRAYS} ({error})") from error
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, values in flat.items():
        part, key = name.split("/", 1)
        arrays.setdefault(part, {})[key] = values
    return SavedNorms(folder, numbers, arrays)
