"""Reports of checked clips so far, on disk."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from videopool.benchmarks.clip_check import ClipReport, ClipTask
from videopool.files import append, json_lines, read_json_lines


class Journal:
    """Reports so far, on disk, so that a stopped check goes on.

    A report counts for as long as the file's size and time of change, and how it was read, stay the same.

    Args:
        path: of the file.
        how: clips are read.
    """

    def __init__(self, path: Path, how: dict[str, object]) -> None:
        self.path, self.how = path, how
        self._kept: dict[str, ClipReport] = {}
        for entry in read_json_lines(path):
            try:
                self._kept[entry["key"]] = ClipReport(**entry["report"])
            except (KeyError, TypeError):
                continue  # of another release

    def get(self, task: ClipTask) -> ClipReport | None:
        """An earlier report of the clip as it is now."""
        return self._kept.get(self._key(task))

    def add(self, task: ClipTask, found: ClipReport) -> None:
        """Keep a report."""
        append(self.path, json_lines([{"key": self._key(task), "report": asdict(found)}]))

    def remove(self) -> None:
        """The check is complete."""
        self.path.unlink(missing_ok=True)

    def _key(self, task: ClipTask) -> str:
        try:
            stat = os.stat(task.path)
            state: list[int] = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            state = []
        return json.dumps([asdict(task), self.how, state])
