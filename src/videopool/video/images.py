"""Still and animated images as RGB, upright; folders of numbered frames."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from videopool.video.clip import Clip, ClipInfo, UnreadableClipError, rate_of

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".apng", ".webp", ".bmp"})
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
SHORTEST = 0.1  # seconds for a frame whose file says 0, as FFmpeg has it for GIF
# A number with its fraction; a hyphen is a minus only if no word or number stands right before it.
NUMBER = re.compile(r"((?:(?<![^\W_])(?<![-.)])-)?[0-9]+(?:\.[0-9]+)?)")
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file. Raises UnreadableClipError for any failure inside the block."""
    try:
        with Image.open(path) as image:
            yield image
    except IMAGE_ERRORS as error:
        raise UnreadableClipError(path, str(error) or "not an image") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """RGB of an open image, uint8 [height, width, 3]: upright by EXIF, 16 bits scaled to 8, without transparency."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # Pillow would clip these at 255; of 16-bit RGB it takes the upper byte
        grey = np.asarray(upright).astype(np.int64) >> 8
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(upright.convert("RGB"))


def animation(path: Path) -> str:
    """Kind of an animated file, "WEBP" or "PNG"; "" for stills and other files."""
    if path.suffix.lower() not in (".webp", ".png", ".apng"):
        return ""
    try:
        with opened(path) as image:
            moves = getattr(image, "is_animated", False) and image.format in ("WEBP", "PNG")
            return str(image.format) if moves else ""
    except UnreadableClipError:
        return ""


class AnimatedWebPClip(Clip):
    """An animated WebP, which Pillow reads and FFmpeg does not. Raises UnreadableClipError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        durations = []
        with opened(path) as image:
            for place in range(image.n_frames):  # type: ignore[attr-defined]
                image.seek(place)
                image.load()  # the duration is known only after decoding
                durations.append(float(image.info["duration"]) / 1000 or SHORTEST)
        seconds = np.cumsum([0.0, *durations])
        fps, even = rate_of(seconds[:-1], len(durations) / float(seconds[-1]))
        self.info = ClipInfo(len(durations), fps, None if even else seconds[:-1])

    def decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        decoded = {}
        with opened(self.path) as image:
            for index in sorted(wanted):
                image.seek(index)
                decoded[index] = to_rgb(image)
        return decoded

    def readable(self) -> int:
        return self.info.num_frames  # timing them decoded them all


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or left behind by an operating system: neither clip nor frame."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def frame_files(folder: Path) -> list[Path]:
    """The images in a folder in natural order: "2.jpg" before "10.jpg", "1.5.jpg" before "2.0.jpg"."""
    images = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p.name)]
    return sorted((p for p in images if p.is_file()), key=_natural_order)


def _natural_order(path: Path) -> tuple[list[str | Decimal], str]:
    parts = NUMBER.split(path.stem)  # text and numbers in turn
    return [Decimal(p) if place % 2 else p.casefold() for place, p in enumerate(parts)], path.name


class FrameFolderClip(Clip):
    """Images of a folder in natural order, taken at `fps` frames per second; or one image as a clip of one frame.

    Raises UnreadableClipError if there is no such folder or file, or no image in it.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, is_folder = path, path.is_dir()
        if not is_folder and not path.is_file():
            raise UnreadableClipError(path, "no such file or folder")
        try:
            self.files = frame_files(path) if is_folder else [path]
        except OSError as error:
            raise UnreadableClipError(path, error) from error
        if not self.files:
            raise UnreadableClipError(path, "the folder holds no images")
        self.info = ClipInfo(len(self.files), fps, first_index=int(is_folder))

    def decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        decoded = {}
        for index in wanted:
            with opened(self.files[index]) as image:
                decoded[index] = to_rgb(image)
        return decoded

    def readable(self) -> int:
        for index in range(len(self.files)):
            self.decode({index})
        return len(self.files)
