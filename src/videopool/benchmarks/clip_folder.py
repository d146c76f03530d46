"""Find clips by the names that annotations give them."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path

from videopool.benchmarks.benchmark import inside
from videopool.benchmarks.errors import BenchmarkError
from videopool.video import VIDEO_SUFFIXES, animation, is_hidden

ANIMATIONS = (".webp", ".apng", ".png")


class ClipFolder:
    """The folder of a benchmark's clips. Raises BenchmarkError if there is none.

    Args:
        prefixes: files may have one of these before the name ("v_" for ActivityNet).
        recursive: clips may lie in folders below root.
    """

    def __init__(self, root: str | Path, prefixes: Sequence[str] = (), recursive: bool = False) -> None:
        self.root = Path(root)
        self.prefixes = ("", *prefixes)
        self.recursive = recursive
        if not self.root.is_dir():
            raise BenchmarkError(f"benchmark.root={root}: no such folder")
        # Once each: a sheet asks for one clip many times.
        self._listing = cache(_listing)
        self._animation = cache(animation)
        self._found = dict[str, Path]()

    def find(self, name: str, where: str) -> Path:
        """The clip of a name with or without suffix: a file, or a folder of frames; the bare path if there is none.

        Raises BenchmarkError for a name that leads out of the root, or that several clips in folders below have.
        """
        if name not in self._found:
            self._found[name] = self._find(name, where)
        return self._found[name]

    def _find(self, name: str, where: str) -> Path:
        path = inside(self.root, name, where)
        if path.name in ("", os.pardir) or os.path.normpath(name) == os.curdir:
            raise BenchmarkError(f"{where}: {name!r} names no clip")
        there = self._listing(path.parent)
        for prefix in self.prefixes:
            if clip := there.get(prefix + path.name):
                return clip
            for suffix in ANIMATIONS:  # a still image of that name may be a video's thumbnail
                clip = there.get(prefix + path.name + suffix)
                if clip and self._animation(clip):
                    return clip
        if self.recursive and path.parent == self.root:
            several = {clip for prefix in self.prefixes for clip in self._below.get(prefix + path.name, ())}
            if len(several) > 1:
                raise BenchmarkError(f"{where}: {name!r} names several clips: {', '.join(map(str, sorted(several)))}")
            if several:
                return several.pop()
        return path

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """Clips in all folders below the root, by name."""
        clips = defaultdict(list)
        seen: set[str] = set()
        for folder, below, _ in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link back up
                below.clear()
                continue
            seen.add(real)
            below[:] = [name for name in below if not is_hidden(name)]
            for name, path in self._listing(Path(folder)).items():
                clips[name].append(path)
        return clips


def short_names(clips: Iterable[Path]) -> dict[Path, str]:
    """A name for each of some clips that lie anywhere: its path below the folder that holds all."""
    paths = set(clips)
    folder = os.path.commonpath({path.parent for path in paths}) if paths else ""
    return {path: path.relative_to(folder).as_posix() for path in paths}


def _listing(folder: Path) -> dict[str, Path]:
    """The contents of a folder by name; videos also by their name without suffix, unless something else has it."""
    try:
        names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
    except OSError:
        return {}
    paths = {name: folder / name for name in names}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in VIDEO_SUFFIXES:
            paths.setdefault(stem, folder / name)
    return paths
