"""Still and animated images to RGB, as they are meant to be seen."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from videopool.video.clip import ClipInfo, check_indices, stack
from videopool.video.errors import UnreadableClipError
from videopool.video.timeline import rate_of

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".apng", ".webp", ".bmp"})
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
SHORTEST = 0.1  # seconds that a frame is shown if its file says 0, as FFmpeg has it for GIF


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file. Raises UnreadableClipError for whatever goes wrong with it inside the block."""
    try:
        with Image.open(path) as image:
            yield image
    except IMAGE_ERRORS as error:
        raise UnreadableClipError(path, str(error) or "not an image") from error


def read_image(path: Path) -> np.ndarray:
    """An image's RGB, uint8 [height, width, 3]. Raises UnreadableClipError if it cannot be read."""
    with opened(path) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """RGB of an open image, uint8 [height, width, 3]: upright by EXIF, 16 bits scaled to 8, transparency left out."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # Pillow cuts these off at 255; of 16-bit RGB it takes the upper byte
        grey = np.asarray(upright).astype(np.int64) >> 8
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(upright.convert("RGB"))


def animation(path: Path) -> str:
    """Which kind of animation a file is, "WEBP" or "PNG"; "" for a still, and for what is no image of these kinds."""
    if path.suffix.lower() not in (".webp", ".png", ".apng"):
        return ""
    try:
        with opened(path) as image:
            kind = image.format if getattr(image, "is_animated", False) else ""
    except UnreadableClipError:
        return ""
    return kind if kind in ("WEBP", "PNG") else ""


class AnimatedWebPClip:
    """An animated WebP, which Pillow reads and FFmpeg does not.

    Raises:
        UnreadableClipError: it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        durations = []
        with opened(self.path) as image:
            for place in range(image.n_frames):  # type: ignore[attr-defined]
                image.seek(place)
                image.load()  # it says how long a frame is shown once it is decoded
                durations.append(float(image.info["duration"]) / 1000 or SHORTEST)
        seconds = np.cumsum([0.0, *durations])
        fps, even = rate_of(seconds[:-1], len(durations) / float(seconds[-1]))
        self.info = ClipInfo(len(durations), fps, None if even else seconds[:-1])

    def __enter__(self) -> "AnimatedWebPClip":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        wanted = check_indices(indices, self.info.num_frames)
        found = {}
        with opened(self.path) as image:
            for index in sorted(set(wanted)):
                image.seek(index)
                found[index] = to_rgb(image)
        return stack(self.path, found, wanted)

    def readable(self) -> int:
        return self.info.num_frames  # all were decoded to time them
