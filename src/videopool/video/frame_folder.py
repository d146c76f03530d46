"""Read a folder of numbered frames, or one image as a clip of one frame."""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from videopool.video.clip import ClipInfo, check_indices, stack
from videopool.video.errors import UnreadableClipError
from videopool.video.images import IMAGE_SUFFIXES, read_image

# A number, with its fraction; a hyphen is a minus only where it joins no word or number to it.
NUMBER = re.compile(r"((?:(?<![^\W_])(?<![-.)])-)?[0-9]+(?:\.[0-9]+)?)")
MADE_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems leave behind or do not show: no clip and no frame."""
    return name.startswith(".") or name.lower() in MADE_BY_SYSTEMS


def frame_files(folder: Path) -> list[Path]:
    """The images in a folder in natural order: "2.jpg" before "10.jpg", "1.5.jpg" before "2.0.jpg"."""
    images = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p.name)]
    return sorted((p for p in images if p.is_file()), key=natural_order)


def natural_order(path: Path) -> tuple[list[str | Decimal], str]:
    """Sorts names by their text and the numbers in it."""
    parts = NUMBER.split(path.stem)  # text and numbers in turn
    return [Decimal(p) if place % 2 else p.casefold() for place, p in enumerate(parts)], path.name


class FrameFolderClip:
    """Images of a folder in natural order.

    Args:
        path: a folder, or one image file.
        fps: frames per second at which the frames were taken (3 for MVBench's TVQA frames).

    Raises:
        UnreadableClipError: there is no such folder or file, or no image in it.
    """

    def __init__(self, path: str | Path, fps: float = 3.0) -> None:
        self.path = Path(path)
        if self.path.is_file():
            self.files = [self.path]
        elif self.path.is_dir():
            try:
                self.files = frame_files(self.path)
            except OSError as error:
                raise UnreadableClipError(self.path, error.strerror or str(error)) from error
        else:
            raise UnreadableClipError(self.path, "no such file or folder")
        if not self.files:
            raise UnreadableClipError(self.path, "the folder holds no images")
        self.info = ClipInfo(len(self.files), fps, first_index=1 if self.path.is_dir() else 0)

    def __enter__(self) -> "FrameFolderClip":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        wanted = check_indices(indices, self.info.num_frames)
        return stack(self.path, {index: read_image(self.files[index]) for index in set(wanted)}, wanted)

    def readable(self) -> int:
        for file in self.files:
            read_image(file)
        return len(self.files)
