"""A training run's checkpoints: what is trained, the optimiser's state, and where in the data the run is.

checkpoints/last.json                    which step is the last that is whole
checkpoints/step-<n>/weights.safetensors trained parameters
checkpoints/step-<n>/optimiser.pt        state of AdamW, tensors and numbers
checkpoints/step-<n>/state.json          the step, which says where in the data to go on, and what was counted
checkpoints/best-<n>.safetensors         trained parameters at the least validation loss, which best.json tells
"""

import shutil
from collections.abc import Mapping
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

NOT_WRITTEN = (SafetensorError, RuntimeError)  # what safetensors and PyTorch raise when the disk is full
WEIGHTS, OPTIMISER, STATE = "weights.safetensors", "optimiser.pt", "state.json"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps that were taken.
        ema: moving mean of the loss, None before the first step.
        failures: clips that could not be read: entry and reason.
        seconds: by kind of work, over all attempts.
        frames: counts of decoded and kept ones.
        tokens: labelled tokens that were learned from.
    """

    step: int = 0
    ema: float | None = None
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    tokens: int = 0


class Checkpoints:
    """The last and the best state of a run, in a folder. A save that is cut off leaves the one before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, progress: Progress, weights: Mapping[str, Tensor], optimiser: Mapping[str, Any]) -> None:
        """Write a state whole, then forget the one before it.

        Raises:
            ResultsError: it cannot be written.
        """
        name = f"step-{progress.step:08d}"
        with writing(self.folder / name, *NOT_WRITTEN), whole_folder(self.folder / name) as part:
            save_file(dict(weights), part / WEIGHTS)
            torch.save(dict(optimiser), part / OPTIMISER)
            write_json(part / STATE, progress.__dict__)
        write_json(self.folder / "last.json", {"step": progress.step, "folder": name})
        for old in self.folder.glob("step-*"):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)

    def last(self) -> tuple[Progress, Path] | None:
        """The last whole state and its folder, None if there is none."""
        told = read_json(self.folder / "last.json")
        folder = self.folder / str(told["folder"]) if told else self.folder
        state = read_json(folder / STATE)
        if told is None or state is None:
            return None
        return Progress(**state), folder

    def save_best(self, step: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Keep weights if no earlier ones had so small a loss.

        Raises:
            ResultsError: they cannot be written.
        """
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
        told = read_json(self.folder / "best.json")
        if told is None:
            return None
        return int(str(told["step"])), float(str(told["loss"])), self.folder / str(told["file"])


def read_weights(path: Path) -> dict[str, Tensor]:
    """Trained parameters by name. Raises ResultsError if the file is damaged or gone."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ResultsError(f"{path} cannot be read ({error}); say force=true to train anew") from error


def read_optimiser(path: Path) -> dict[str, Any]:
    """State of the optimiser. Raises ResultsError if the file is damaged or gone."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever torch makes of a damaged file
        raise ResultsError(f"{path} cannot be read ({error}); say force=true to train anew".splitlines()[0]) from error
