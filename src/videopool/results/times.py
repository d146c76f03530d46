"""Time spent on a point's samples over all attempts: one line of JSON per batch, written after its records."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from videopool.files import append, json_lines, read_json_lines
from videopool.results.errors import writing

MODEL = ("prefill", "questions", "generate", "api")  # the model's own work, repeated for each sample
SHARED = ("decode", "preprocess", "vision", "store")  # done once for all points that see the same frames


class Times:
    """The times of a running point; several processes may append to one file, which is created if needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: Counter[str] = Counter()

    def add(self, answered: int, seconds: Mapping[str, float]) -> None:
        """Add a line: samples answered since the last line, and the total seconds so far by kind of work.

        Raises ResultsError if the disk is full or gone.
        """
        spent = {kind: round(total - self._written[kind], 6) for kind, total in seconds.items()}
        self._written = Counter(seconds)
        with writing(self.path):
            append(self.path, json_lines([{"answered": answered, "seconds": spent}]))


def read_times(path: Path) -> tuple[int, dict[str, float]]:
    """The number of timed answers, and seconds by kind of work. Lines that were cut off are left out."""
    answered, seconds = 0, Counter[str]()
    for row in read_json_lines(path):
        try:
            answered += int(row["answered"])
            seconds.update(row["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
    return answered, dict(seconds)
