"""The keys of every store: all that determines the features of a frame."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import metadata
from typing import Any

from videopool import __version__
from videopool.video import READING

OWN = "own"  # the dtype of a store that rounds nothing

# A frame's index, or (layout, frame, frame, ...) for one image tiled of a clip's frames.
View = int | tuple[str | int, ...]


@dataclass(frozen=True)
class FeatureSource:
    """How features are made of a clip's views. Equal sources make equal features of equal bytes.

    Pooling, projector, language model, prompt and question come after the features and are not part of it.
    """

    reader: str  # of videos
    processor: str  # hash of the image processor's settings
    tower: str  # hash of the tower's configuration and weights
    media: str  # which tower, "video" or "image"
    layer: str  # of the tower, or the name of another of its outputs
    dtype: str  # of the model, e.g. "float32"
    shape: tuple[int, int]  # of a view's features, (C + H*W, Dv); (0, Dv): clips differ, in features [H, W, Dv]
    arithmetic: str  # kind of device, attention, precision of the trainer
    software: str  # versions of the packages that decode, preprocess and encode
    model: str = field(default="", compare=False)  # the first model with this source, for tables
    exact: bool = field(default=False, compare=False)  # kept in float32, whatever the store's dtype
    # What else is read of the tower in the same pass, by name: each has its own key, and its output computes it.
    beside: dict[str, tuple["FeatureSource", Any]] = field(default_factory=dict, compare=False)

    @property
    def all(self) -> list["FeatureSource"]:
        """This one, then those beside it."""
        return [self, *(source for source, _ in self.beside.values())]

    def words(self, *more: str) -> dict[str, Any]:
        """All that is compared, and other fields by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.compare or each.name in more}


@dataclass(frozen=True)
class ClipKey:
    """A clip under one source; together with a view, the key of features."""

    source: FeatureSource
    content: str  # SHA-256 of the clip's bytes


def source_hash(source: FeatureSource, kept: str) -> str:
    """SHA-256 of a source and the store's dtype, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps({**source.words(), "kept": kept}, sort_keys=True).encode()).hexdigest()


def fits(found: Sequence[int], stated: Sequence[int]) -> bool:
    """Whether features of a view have the shape that their source states."""
    rows, width = stated
    return list(found) == [rows, width] if rows else len(found) == 3 and found[-1] == width


def view_code(view: View) -> str:
    """A view in file names: a frame's index, or "t" and 16 digits for a tiled image."""
    if isinstance(view, tuple):
        return "t" + hashlib.sha256(json.dumps(view).encode()).hexdigest()[:16]
    return str(view)


def frames_of(view: View) -> set[int]:
    """The frames in a view."""
    return {view} if isinstance(view, int) else {part for part in view if isinstance(part, int)}


@cache
def software(reader: str) -> str:
    """Versions of the packages between a clip and its features, as "name version, name version, ..."."""
    packages = ["av", *(["decord"] if reader == "decord" else []), "numpy", "pillow", "torch", "transformers"]
    versions = [f"videopool {__version__}", f"frames {READING}"]
    for name in packages:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(versions)
