"""What answering a point's samples took, over all attempts: a line of JSON a batch, written after its records."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from videopool.files import append, json_lines, read_json_lines
from videopool.results.errors import writing

MODEL = ("prefill", "questions", "generate", "api")  # of the model itself, for each sample anew
SHARED = ("decode", "preprocess", "vision", "store")  # made once for all points that see the same frames


class Times:
    """The times of a point while it runs; several processes may write to one file.

    Args:
        path: the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told: Counter[str] = Counter()

    def add(self, answered: int, seconds: Mapping[str, float]) -> None:
        """Add a line: samples that were answered since the last one, and seconds by kind that were spent so far.

        Raises:
            ResultsError: the disk is full or gone.
        """
        spent = {kind: total - self._told[kind] for kind, total in seconds.items()}
        self._told = Counter(seconds)
        row = {"answered": answered, "seconds": {kind: round(own, 6) for kind, own in spent.items()}}
        with writing(self.path):
            append(self.path, json_lines([row]))


def read_times(path: Path) -> tuple[int, dict[str, float]]:
    """How many answers were timed, and seconds by kind. A line that a kill cut off is left out."""
    answered, seconds = 0, Counter[str]()
    for told in read_json_lines(path):
        try:
            answered += int(told["answered"])
            seconds.update(told["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
    return answered, dict(seconds)
