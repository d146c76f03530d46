"""The keys of every store: all that determines the features of a frame."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata

from videopool import __version__
from videopool.video import READING

OWN = "own"  # the dtype of a store that rounds nothing

# A frame's index, or (layout, frame, frame, ...) for one image tiled of a clip's frames.
View = int | tuple[str | int, ...]


@dataclass(frozen=True)
class FrameSource:
    """How features are made of a clip's views. Equal sources make equal features of equal bytes.

    Pooling, projector, language model, prompt and question come after the features and are not part of it.

    Attributes:
        reader: of videos.
        processor: hash of the image processor's settings.
        tower: hash of the tower's configuration and weights.
        media: which tower, "video" or "image".
        layer: which of the tower's layers.
        dtype: of the model, e.g. "float32".
        shape: of a view's features, (C + H*W, Dv).
        arithmetic: kind of device, attention, precision of the trainer.
        software: versions of the packages that decode, preprocess and encode.
        model: for which this was first made; for tables only, not compared.
    """

    reader: str
    processor: str
    tower: str
    media: str
    layer: str
    dtype: str
    shape: tuple[int, int]
    arithmetic: str
    software: str
    model: str = field(default="", compare=False)


@dataclass(frozen=True)
class ClipKey:
    """A clip under one source; together with a view, the key of features.

    Attributes:
        source: how features are made.
        content: SHA-256 of the clip's bytes.
    """

    source: FrameSource
    content: str


def source_hash(source: FrameSource, kept: str) -> str:
    """SHA-256 of a source and the store's dtype, 64 hexadecimal digits."""
    compared = {**asdict(source), "kept": kept}
    del compared["model"]
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


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
