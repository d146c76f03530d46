"""Whether a file can hold the split that it is read as: points of different splits must not be compared."""

import re
from collections.abc import Mapping
from pathlib import Path

from videopool.benchmarks.errors import BenchmarkError

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def check_split(split: str, file: Path, questions: int = 0, sizes: Mapping[str, int] | None = None) -> None:
    """Raises BenchmarkError for a file with the name of another split, or with more questions than the split.

    Args:
        split: as in the benchmark's id; the file's name is only compared with names for train, val and test.
        questions: number in the file.
        sizes: questions of known splits.
    """
    if sizes and questions > sizes.get(split, questions):
        raise BenchmarkError(
            f"annotation file {file} has {questions} questions, the split {split!r} has {sizes[split]}: "
            "it is another one's; say benchmark.split=..."
        )
    words = (re.sub("(set|split)$", "", word.lower()) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", file.stem))
    named = {SPLITS[word] for word in words if word in SPLITS}
    own = SPLITS.get(split.lower())
    if own and len(named) == 1 and own not in named:
        other = named.pop()
        raise BenchmarkError(
            f"annotation file {file} is by its name of the split {other!r}, not {split!r}: say benchmark.split={other}"
        )
