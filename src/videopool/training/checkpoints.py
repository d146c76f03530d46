"""A training run's checkpoints: trained weights, the optimiser's state, and where in the data the run is.

checkpoints/last.json                    names the last complete state
checkpoints/step-<n>/weights.safetensors trained parameters
checkpoints/step-<n>/optimiser.pt        state of AdamW, tensors and numbers
checkpoints/step-<n>/state.json          TrainingState; its step says where in the data to continue
checkpoints/best-<n>.safetensors         trained parameters at the least validation loss, named by best.json
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from videopool.files import whole, whole_folder
from videopool.results import ResultsError
from videopool.results.errors import writing
from videopool.results.point import read_json, write_json

NOT_WRITTEN = (SafetensorError, RuntimeError)  # raised by safetensors and PyTorch when the disk is full
WEIGHTS, OPTIMISER, STATE = "weights.safetensors", "optimiser.pt", "state.json"


@dataclass
class TrainingState:
    """How far a run is."""

    step: int = 0  # optimiser steps taken
    ema: float | None = None  # of the loss; None before the first step
    failures: dict[str, str] = field(default_factory=dict)  # unreadable clips: why, by entry
    seconds: dict[str, float] = field(default_factory=dict)  # by kind of work, over all attempts
    frames: dict[str, int] = field(default_factory=dict)  # counts of decoded and kept frames
    tokens: int = 0  # labelled tokens learned from


class Checkpoints:
    """The last and the best state of a run, in a folder. An interrupted save leaves the state before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: TrainingState, weights: Mapping[str, Tensor], optimiser: Mapping[str, Any]) -> None:
        """Write a state, then remove the one before it. Raises ResultsError if it cannot be written."""
        name = f"step-{state.step:08d}"
        with writing(self.folder / name, *NOT_WRITTEN), whole_folder(self.folder / name) as part:
            save_file(dict(weights), part / WEIGHTS)
            torch.save(dict(optimiser), part / OPTIMISER)
            write_json(part / STATE, state.__dict__)
        write_json(self.folder / "last.json", {"step": state.step, "folder": name})
        for old in self.folder.glob("step-*"):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)

    def last(self) -> tuple[TrainingState, Path] | None:
        """The last complete state and its folder, None if there is none."""
        if (last := read_json(self.folder / "last.json")) is None:
            return None
        folder = self.folder / str(last["folder"])
        state: dict[str, Any] | None = read_json(folder / STATE)
        return None if state is None else (TrainingState(**state), folder)

    def save_best(self, step: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Keep weights if their loss is below all earlier ones. Raises ResultsError if they cannot be written."""
        best = self.best()
        if best is not None and best[1] <= loss:
            return
        path = self.folder / f"best-{step:08d}.safetensors"
        with writing(path, *NOT_WRITTEN):
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole(path) as part:
                save_file(dict(weights), part)
        write_json(self.folder / "best.json", {"step": step, "loss": loss, "file": path.name})
        for old in self.folder.glob("best-*.safetensors"):
            if old != path:
                old.unlink()

    def best(self) -> tuple[int, float, Path] | None:
        """Step, validation loss and weights of the best state; None without validation."""
        best: dict[str, Any] | None = read_json(self.folder / "best.json")
        return (int(best["step"]), float(best["loss"]), self.folder / best["file"]) if best else None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever safetensors or torch raise for a damaged file
        raise ResultsError(f"{path} cannot be read ({error}); say force=true to train anew".splitlines()[0]) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Trained parameters by name. Raises ResultsError if the file is damaged or gone."""
    with _reading(path):
        return load_file(path)


def read_optimiser(path: Path) -> dict[str, Any]:
    """State of the optimiser. Raises ResultsError if the file is damaged or gone."""
    with _reading(path):
        return dict(torch.load(path, map_location="cpu", weights_only=True))
