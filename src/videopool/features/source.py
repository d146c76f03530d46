"""What determines the features of a frame: the keys of every store."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from videopool import __version__
from videopool.video import READING

OWN = "own"  # where a store keeps features in, if it rounds nothing

# A frame's index, or (layout, frame, frame, ...) for one image that is tiled of a clip's frames.
View = int | tuple[str | int, ...]


@dataclass(frozen=True)
class FrameSource:
    """How features are made of a clip's views. Equal sources make equal features of equal bytes.

    Pooling, projector, language model, prompt and question stand behind the features and are no part of it.

    Attributes:
        reader: of videos.
        processor: hash of the image processor's settings.
        tower: hash of the tower's configuration and weights.
        media: which tower, "video" or "image".
        layer: which of the tower's layers.
        dtype: of the model, e.g. "float32".
        shape: of a view's features, (C + H*W, Dv).
        arithmetic: what computes: kind of device, attention, precision of the trainer.
        software: versions of the packages that decode, preprocess and encode.
        model: that this was first made for; told in tables, not compared.
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
    """A clip as one source sees it; with a view, the key of a view's features.

    Attributes:
        source: how features are made.
        content: SHA-256 of the clip's bytes.
    """

    source: FrameSource
    content: str


def source_hash(source: FrameSource, kept: str) -> str:
    """SHA-256 of a source and of the dtype that its features are kept in, 64 hexadecimal digits."""
    compared = {**asdict(source), "kept": kept}
    del compared["model"]
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


def source_words(source: FrameSource, kept: str) -> dict[str, Any]:
    """A source in words, as source.json says it: read_words() gives it back."""
    return {"kept": kept, "hash": source_hash(source, kept), **asdict(source)}


def read_words(path: Path) -> dict[str, Any] | None:
    """What a source.json says, None if it cannot be read."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return words if isinstance(words, dict) else None


def fits(words: dict[str, Any], features: Tensor) -> bool:
    """Whether a view's features have the shape and the dtype that their source's words say."""
    dtype = str(features.dtype).removeprefix("torch.")
    return list(features.shape) == list(words["shape"]) and words["kept"] in (OWN, dtype)


def view_code(view: View) -> str:
    """A view in file names: a frame's number, or "t" and 16 digits for a tiled image."""
    if isinstance(view, tuple):
        return "t" + hashlib.sha256(json.dumps(view).encode()).hexdigest()[:16]
    return str(view)


def frames_of(view: View) -> set[int]:
    """The frames that a view shows."""
    return {view} if isinstance(view, int) else {part for part in view if isinstance(part, int)}


@cache
def software(reader: str) -> str:
    """Versions of what turns a clip into features, as "name version, name version, ..."."""
    packages = ["av", *(["decord"] if reader == "decord" else []), "numpy", "pillow", "torch", "transformers"]
    found = [f"videopool {__version__}", f"frames {READING}"]
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
