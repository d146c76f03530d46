"""Open a clip with the reader that fits it."""

from pathlib import Path

from videopool.notes import note
from videopool.video.clip import Clip, UnreadableClipError, printable
from videopool.video.images import IMAGE_SUFFIXES, AnimatedWebPClip, FrameFolderClip, animation
from videopool.video.pyav_reader import PyAVClip

READERS = ("pyav", "decord")
READING = 2  # raise it when frames or times of some file come out differently; part of the feature store's keys
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".wmv", ".flv", ".ogv", ".mpg", ".mpeg", ".vob", ".ts",
    ".mts", ".m2ts", ".gif",
})  # fmt: skip


def open_clip(path: str | Path, reader: str = "pyav", fps: float = 3.0) -> Clip:
    """Open a video file, an animated or still image, or a folder of numbered frames.

    Args:
        reader: "pyav" or "decord", for video files. Where decord and the container disagree, PyAV reads the clip
            and a line on stderr says so.
        fps: rate of a folder of frames.

    Raises UnreadableClipError if the clip cannot be opened. Raises ValueError for no such reader.
    """
    if reader not in READERS:
        raise ValueError(f"reader={reader!r}: choose one of {', '.join(READERS)}")
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # e.g. a name that is too long
        raise UnreadableClipError(path, error) from error
    suffix, animated = path.suffix.lower(), "" if is_folder else animation(path)
    if animated == "WEBP":
        return AnimatedWebPClip(path)
    if is_folder or (suffix in IMAGE_SUFFIXES and not animated):
        return FrameFolderClip(path, fps)
    if reader == "pyav" or animated or suffix == ".gif":
        return PyAVClip(path)
    try:
        from videopool.video.decord_reader import trusted
    except ImportError as error:
        raise UnreadableClipError(path, f"reader=decord is not usable here ({error}); use reader=pyav") from error
    clip, doubt = trusted(path)
    if doubt:
        note(f"{printable(str(path))} is read by PyAV, not decord: {doubt}", once=True, every_rank=True)
    return clip
