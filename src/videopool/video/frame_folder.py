"""Read a folder of numbered frames, or one image as a clip of one frame."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from videopool.video.clip import ClipInfo, check_indices, stack
from videopool.video.errors import UnreadableClipError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class FrameFolderClip:
    """Images in the order of the last number in their names ("frame_2.jpg" before "frame_10.jpg").

    Args:
        path: a folder, or one image file.
        fps: frames per second at which the frames were taken (3 for MVBench's TVQA frames).
    """

    def __init__(self, path: str | Path, fps: float = 3.0) -> None:
        self.path = Path(path)
        if self.path.is_file():
            self.files = [self.path]
        elif self.path.is_dir():
            images = [p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
            self.files = sorted(images, key=lambda p: (_number(p), p.name))
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
        found = {}
        for index in set(wanted):
            file = self.files[index]
            try:
                with Image.open(file) as image:
                    found[index] = np.asarray(image.convert("RGB"))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise UnreadableClipError(file, str(error) or "not an image") from error
        return stack(self.path, found, wanted)


def _number(path: Path) -> int:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else -1
