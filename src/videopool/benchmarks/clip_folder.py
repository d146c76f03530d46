"""Find clips by the names that annotations give them."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from videopool.benchmarks.benchmark import inside
from videopool.benchmarks.errors import BenchmarkError
from videopool.video import VIDEO_SUFFIXES, animation, is_hidden

ANIMATIONS = (".webp", ".apng", ".png")


class ClipFolder:
    """The folder that a benchmark's clips are in.

    Args:
        root: the folder.
        prefixes: files may carry one of these before the name ("v_" for ActivityNet).
        recursive: clips may lie in folders below.

    Raises:
        BenchmarkError: there is no such folder.
    """

    def __init__(self, root: str | Path, prefixes: Sequence[str] = (), recursive: bool = False) -> None:
        self.root = Path(root)
        self.prefixes = ("", *prefixes)
        self.recursive = recursive
        if not self.root.is_dir():
            raise BenchmarkError(f"benchmark.root={root}: no such folder")
        # Listed once: a sheet asks for one clip many times.
        self._listed = cache(_listing)
        self._found: dict[str, Path] = {}
        self._below: dict[str, list[Path]] | None = None

    def find(self, name: str, where: str) -> Path:
        """The clip of a name, which may leave out the suffix: a file, or a folder of frames.

        A clip that is not there is the bare path, which fails when it is read.

        Raises:
            BenchmarkError: the name leads out of the root, or names several clips in folders below.
        """
        if name not in self._found:
            self._found[name] = self._find(name, where)
        return self._found[name]

    def _find(self, name: str, where: str) -> Path:
        path = inside(self.root, name, where)
        if path.name in ("", os.pardir) or os.path.normpath(name) == os.curdir:
            raise BenchmarkError(f"{where}: {name!r} names no clip")
        for prefix in self.prefixes:
            if found := self._listed(path.parent).get(prefix + path.name):
                return found
            for suffix in ANIMATIONS:  # a still of that name may be a video's thumbnail
                found = self._listed(path.parent).get(prefix + path.name + suffix)
                if found and animation(found):
                    return found
        if self.recursive and path.parent == self.root:
            several = {p for prefix in self.prefixes for p in self._everywhere().get(prefix + path.name, ())}
            if len(several) > 1:
                raise BenchmarkError(f"{where}: {name!r} names several clips: {', '.join(map(str, sorted(several)))}")
            if several:
                return several.pop()
        return path

    def _everywhere(self) -> dict[str, list[Path]]:
        """Clips in all folders below the root, by name."""
        if self._below is None:
            self._below = {}
            seen: set[str] = set()
            for folder, below, _ in os.walk(self.root, followlinks=True):
                real = os.path.realpath(folder)
                if real in seen:  # a link back up
                    below.clear()
                    continue
                seen.add(real)
                below[:] = [name for name in below if not is_hidden(name)]
                for name, path in self._listed(Path(folder)).items():
                    self._below.setdefault(name, []).append(path)
        return self._below


def _listing(folder: Path) -> dict[str, Path]:
    """What is in a folder, by name; videos by their name without suffix too, where nothing else is called so."""
    try:
        names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
    except OSError:
        return {}
    found = {name: folder / name for name in names}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in VIDEO_SUFFIXES:
            found.setdefault(stem, folder / name)
    return found
