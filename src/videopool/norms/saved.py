"""A measurement in memory and on disk.

norms.json               numbers, and their meanings
norms.safetensors        histograms, maps, profiles, by "<stage>/<array>"
.norms-partial           an unfinished measurement: all sums so far, and the names of their clips
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from videopool.files import whole
from videopool.norms.attention import AttentionNorms
from videopool.norms.errors import NormsError
from videopool.norms.lineage import Births, Crossed, LeadingNeurons
from videopool.norms.outliers import TIMES_MEDIAN, OutlierRules
from videopool.norms.overlap import Overlap
from videopool.norms.stage import StageNorms
from videopool.norms.statistics import Sums
from videopool.norms.vocabulary import VocabularyKinds

NUMBERS, ARRAYS, PARTIAL = "norms.json", "norms.safetensors", ".norms-partial"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, SafetensorError)


class Measurement:
    """Lp norms at some stages, by name, and what is compared with them.

    Args:
        stages: names.
        layers: of the language model, whose attention is measured.
        p: of the norm.
        rules: of outliers.
        scores: names of scores of the tower.
        lineages: stages of successive layers, whose last one's outliers are traced back, by name.
        crossed: stages of the language model whose outliers are compared with the tower's.
        vocabulary: size of the vocabulary that tokens are compared with, by stage.
        neurons: how many of the tower's neurons to name that outliers activate most.
        overlap: whether outliers are compared with what the pooling keeps.
    """

    def __init__(
        self,
        stages: Sequence[str],
        layers: Sequence[int],
        p: float,
        rules: OutlierRules,
        scores: Sequence[str] = (),
        lineages: Mapping[str, Sequence[str]] | None = None,
        crossed: Sequence[str] = (),
        vocabulary: Mapping[str, int] | None = None,
        overlap: bool = False,
        neurons: int = 0,
    ) -> None:
        self.stages = {name: StageNorms(p, rules) for name in stages}
        self.attention = {layer: AttentionNorms(rules.in_clip) for layer in layers}
        self.scores = {name: AttentionNorms(rules.in_clip) for name in scores}
        self.births = {name: Births(own, rules.in_clip) for name, own in (lineages or {}).items()}
        self.crossed = {name: Crossed(rules.in_clip) for name in crossed}
        self.neurons = LeadingNeurons(neurons) if neurons else None
        self.overlap = Overlap(rules.in_clip) if overlap else None
        self.vocabulary = {name: VocabularyKinds(size, TIMES_MEDIAN) for name, size in (vocabulary or {}).items()}

    def _drawn(self) -> dict[str, StageNorms | AttentionNorms]:
        """The parts that have arrays."""
        return {
            **self.stages,
            **{f"attention.{layer}": part for layer, part in self.attention.items()},
            **{f"scores.{name}": part for name, part in self.scores.items()},
        }

    def _parts(self) -> dict[str, Sums]:
        return {
            **self._drawn(),
            **{f"births.{name}": part for name, part in self.births.items()},
            **{f"crossed.{name}": part for name, part in self.crossed.items()},
            **{f"vocabulary.{name}": part for name, part in self.vocabulary.items()},
            **({"overlap": self.overlap} if self.overlap else {}),
            **({"neurons": self.neurons} if self.neurons else {}),
        }

    def numbers(self) -> dict[str, Any]:
        """Its part of norms.json."""
        stages = {name: stage.numbers() for name, stage in self.stages.items()}
        for births in self.births.values():
            for name, shares in births.numbers().items():
                stages[name]["born"] = shares
        for key, parts in (("with_tower", self.crossed), ("vocabulary", self.vocabulary)):
            for name, part in parts.items():
                stages[name][key] = part.numbers()
        return {
            "stages": stages,
            "attention": {str(layer): part.numbers() for layer, part in self.attention.items()},
            "scores": {name: part.numbers() for name, part in self.scores.items()},
            "overlap": self.overlap.numbers() if self.overlap else {},
            "register_neurons": self.neurons.numbers() if self.neurons else [],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The content of norms.safetensors: "<stage>/<array>" and "attention.<layer>/<array>"."""
        return {f"{name}/{key}": array for name, part in self._drawn().items() for key, array in part.arrays().items()}

    def state(self) -> dict[str, np.ndarray]:
        """All sums so far, to be saved."""
        return {f"{name}/{key}": array for name, part in self._parts().items() for key, array in part.state().items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a state. Raises KeyError for the state of another measurement."""
        parts = _by_part(state)
        for name, part in self._parts().items():
            part.load(parts.get(name, {}))


@dataclass
class MeasuredSoFar:
    """The clips of a measurement, by name."""

    done: dict[str, str] = field(default_factory=dict)  # content hashes
    failed: dict[str, str] = field(default_factory=dict)  # reasons why they could not be measured


def save_partial(folder: Path, measured: Measurement, clips: MeasuredSoFar) -> None:
    """Save an unfinished measurement. Raises NormsError if it cannot be written."""
    _write(folder / PARTIAL, measured.state(), {"done": json.dumps(clips.done), "failed": json.dumps(clips.failed)})


def save_arrays(folder: Path, measured: Measurement) -> None:
    """Write norms.safetensors. Raises NormsError if it cannot be written."""
    _write(folder / ARRAYS, measured.arrays(), {})


def _write(path: Path, arrays: Mapping[str, np.ndarray], words: dict[str, str]) -> None:
    try:
        with whole(path) as part:
            save_file({k: np.array(v, order="C") for k, v in arrays.items()}, part, words)
    except (OSError, SafetensorError) as error:
        raise NormsError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def load_partial(folder: Path, measured: Measurement) -> MeasuredSoFar:
    """Fill a measurement from an unfinished one, if there is one. Failed clips are forgotten, to be tried again.

    Raises NormsError if the file cannot be read, or holds another measurement.
    """
    path = folder / PARTIAL
    if not path.exists():
        return MeasuredSoFar()
    try:
        done = _done(path)
        measured.load(load_file(path))
    except UNREADABLE as error:
        raise NormsError(f"{path} cannot be read ({error}): say force=true to begin anew") from error
    return MeasuredSoFar(done)


def _done(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(json.loads(file.metadata()["done"]))


def measured_contents(folder: Path) -> dict[str, str]:
    """Content hashes of the clips of a measurement, finished or not, by name."""
    try:
        if (folder / PARTIAL).exists():
            return _done(folder / PARTIAL)
        return dict(json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["contents"])
    except UNREADABLE:
        return {}


def forget(folder: Path) -> None:
    """Remove a measurement, finished or not."""
    for name in (NUMBERS, ARRAYS, PARTIAL):
        (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class SavedNorms:
    """A finished measurement."""

    folder: Path  # of its point
    numbers: dict[str, Any]  # of norms.json
    arrays: dict[str, dict[str, np.ndarray]]  # of norms.safetensors, by stage (or "attention.<layer>") and name


def load_norms(folder: str | Path) -> SavedNorms:
    """Read a finished measurement. Raises NormsError if it is missing or damaged."""
    folder = Path(folder)
    try:
        numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        return SavedNorms(folder, numbers, _by_part(load_file(folder / ARRAYS)))
    except (OSError, ValueError, SafetensorError) as error:
        raise NormsError(f"{folder} holds no whole {NUMBERS} and {ARRAYS} ({error})") from error


def _by_part(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays named "<part>/<key>" by part and key."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, values in arrays.items():
        part, key = name.split("/", 1)
        parts.setdefault(part, {})[key] = values
    return parts
