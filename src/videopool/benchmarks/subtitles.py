"""Subtitles in front of a question, from one file per clip: SubRip (.srt), or LongVideoBench's JSON."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from videopool.benchmarks.benchmark import inside
from videopool.benchmarks.columns import Row
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.tables import parsed, text_of

KEY = "benchmark.subtitles.root"
NONE = "No subtitles available."
Line = tuple[float, float, str]  # begins and ends, in seconds of the file's clock
TIMES = re.compile(r"([\d:.,]+)\s*-->\s*([\d:.,]+)")
TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")


class Subtitles:
    """Puts the subtitles of its clip in front of a question.

    Args:
        root: folder of the files.
        name: a file's name, of the row's columns, as in "{videoID}.srt". A clip without a file has no subtitles.
        start, length: columns with the second at which the clip begins on the file's clock, and its seconds; a
            file of the whole video is cut to the clip.
        most: lines at most, spread evenly; None for all of them. A model's context bounds the rest.
        text: the question, with {subtitles} and {question}.

    Raises BenchmarkError for a missing folder, or a file that cannot be read.
    """

    def __init__(
        self, root: str, name: str, start: str | None = None, length: str | None = None, most: int | None = None,
        text: str = "This video's subtitles are listed below:\n{subtitles}\n{question}",
    ) -> None:  # fmt: skip
        self.root, self.name, self.start, self.length, self.most = Path(root), name, start, length, most
        self.text = text
        if not self.root.is_dir():
            raise BenchmarkError(f"{KEY}={root}: no such folder")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise BenchmarkError(f"benchmark.subtitles.most={most!r}: give a number of lines, or null")
        for place in ("{subtitles}", "{question}"):
            if text.count(place) != 1:
                raise BenchmarkError(f"benchmark.subtitles.text must hold {place} exactly once")
        self._lines = cache(read_subtitles)

    def before(self, row: Row, source: Row) -> Row:
        """The row with the subtitles in its question; `source` has the set's own columns."""
        name = re.sub(r"\{([^{}]+)\}", lambda match: source.text(match[1], required=True), self.name)
        path = inside(self.root, name, row.where)
        lines = self._lines(path) if path.exists() else []
        start = (source.number(self.start) if self.start else None) or 0.0
        length = source.number(self.length) if self.length else None
        end = np.inf if length is None else start + length
        said = [text for begins, ends, text in lines if ends > start and begins < end]
        if self.most is not None and len(said) > self.most:
            said = [said[int(i)] for i in np.round(np.linspace(0, len(said) - 1, self.most))]
        before, after = self.text.split("{question}")
        before, after = (part.replace("{subtitles}", "\n".join(said) or NONE) for part in (before, after))
        return row.with_cells({**row.cells, "question": before + row.text("question", required=True) + after})


def read_subtitles(path: Path) -> list[Line]:
    """The lines of a file in order, without markup and empty ones. Raises BenchmarkError for a malformed file."""
    text = text_of(path, KEY)
    return _of_json(path, text) if path.suffix.lower() == ".json" else _of_srt(path, text)


def _of_srt(path: Path, text: str) -> list[Line]:
    """Blocks of a number, a line with times, and text."""
    lines: list[Line] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip()):
        rows = block.split("\n")
        place = next((number for number, row in enumerate(rows) if TIMES.search(row)), None)
        if place is None:
            if block.strip():
                raise BenchmarkError(f"{path}: no times in the subtitle {block[:40]!r}")
            continue
        match = TIMES.search(rows[place])
        assert match
        said = " ".join(TAG.sub("", " ".join(rows[place + 1 :])).split())
        if said:
            lines.append((_seconds(path, match[1]), _seconds(path, match[2]), said))
    return lines


def _of_json(path: Path, text: str) -> list[Line]:
    """Objects with start, end and line ("00:00:01.5"), or with timestamp ([1.5, 2.0]) and text."""
    content = parsed(text, str(path))
    if not isinstance(content, list) or not all(isinstance(entry, Mapping) for entry in content):
        raise BenchmarkError(f"{path}: a list of objects is expected")
    lines: list[Line] = []
    for number, entry in enumerate(content):
        stamps = entry.get("timestamp", [entry.get("start"), entry.get("end")])
        said = entry.get("text", entry.get("line"))
        if not isinstance(stamps, list) or len(stamps) != 2 or not isinstance(said, str):
            raise BenchmarkError(f"{path}, entry {number}: no times and text in {json.dumps(entry)[:80]}")
        begins = _seconds(path, stamps[0])
        ends = np.inf if stamps[1] is None else _seconds(path, stamps[1])  # the last line of some files stays
        if plain := " ".join(TAG.sub("", said).split()):
            lines.append((begins, ends, plain))
    return lines


def _seconds(path: Path, stamp: object) -> float:
    """Seconds of "1:02:03,5", "62:03.5" or a number."""
    try:
        if isinstance(stamp, (int, float)):
            return float(stamp)
        seconds = 0.0
        for part in str(stamp).replace(",", ".").split(":"):
            seconds = 60 * seconds + float(part)
        return seconds
    except ValueError as error:
        raise BenchmarkError(f"{path}: {stamp!r} is no time") from error
