"""Frames of a clip as small pictures that stand inside a page."""

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from videopool.video import UnreadableClipError, open_clip

HEIGHT = 96  # pixels
QUALITY = 75
MOST = 8  # frames of a clip


def spread(indices: Sequence[int], most: int = MOST) -> list[int]:
    """So many of a clip's frame indices at most, evenly spread and with both ends."""
    if len(indices) <= most:
        return list(indices)
    return [indices[place * (len(indices) - 1) // (most - 1)] for place in range(most)]


def thumbnails(path: Path, indices: Sequence[int], reader: str) -> dict[int, str]:
    """Data URIs of JPEG pictures, by frame index.

    Args:
        path: the clip.
        indices: of frames, in any order.
        reader: "pyav" or "decord": the one that the point read with, so that indices mean the same frames.

    Raises:
        UnreadableClipError: the clip is gone, damaged, or no longer has these frames.
    """
    wanted = sorted(set(indices))
    try:
        with open_clip(path, reader) as clip:
            frames = clip.frames(wanted)
    except IndexError as error:
        raise UnreadableClipError(path, str(error)) from error
    return {index: _jpeg_uri(frame) for index, frame in zip(wanted, frames, strict=True)}


def _jpeg_uri(frame: object) -> str:
    from PIL import Image

    picture = Image.fromarray(frame)  # type: ignore[arg-type]
    picture.thumbnail((4 * HEIGHT, HEIGHT))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + b64encode(content.getvalue()).decode()
