"""Open a clip with the reader that fits it."""

from pathlib import Path

from videopool.video.clip import Clip
from videopool.video.errors import UnreadableClipError
from videopool.video.frame_folder import IMAGE_SUFFIXES, FrameFolderClip
from videopool.video.pyav_reader import PyAVClip

READERS = ("pyav", "decord")
VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".gif"})


def open_clip(path: str | Path, reader: str = "pyav", fps: float = 3.0) -> Clip:
    """Open a video file, a GIF, a folder of numbered frames, or an image.

    Args:
        path: the file or folder.
        reader: "pyav" or "decord", for video files.
        fps: rate of a folder of frames.

    Raises:
        UnreadableClipError: the clip cannot be opened.
        ValueError: no such reader.
    """
    if reader not in READERS:
        raise ValueError(f"reader={reader!r}: choose one of {', '.join(READERS)}")
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # as of a name that is too long
        raise UnreadableClipError(path, error.strerror or str(error)) from error
    if is_folder or path.suffix.lower() in IMAGE_SUFFIXES:
        return FrameFolderClip(path, fps)
    if reader == "pyav" or path.suffix.lower() == ".gif":
        return PyAVClip(path)
    try:
        from videopool.video.decord_reader import DecordClip
    except ImportError as error:
        raise UnreadableClipError(path, f"reader=decord is not usable here ({error}); use reader=pyav") from error
    return DecordClip(path)
