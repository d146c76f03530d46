"""Whether a file can be of the split that it is said to be of: points of different splits must not be compared."""

import re
from collections.abc import Mapping
from pathlib import Path

from videopool.benchmarks.errors import BenchmarkError

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def check_split(split: str, file: Path, questions: int, sizes: Mapping[str, int]) -> None:
    """Refuse a file that cannot be of a split.

    Args:
        split: as the benchmark's id has it; one that is neither training, validation nor test is not checked by name.
        questions: in the file.
        sizes: questions of splits that are known.

    Raises:
        BenchmarkError: the file's name is that of another split, or it has more questions than the split.
    """
    if split in sizes and questions > sizes[split]:
        raise BenchmarkError(
            f"annotation file {file} has {questions} questions, the split {split!r} has {sizes[split]}: "
            "it is another one's; say benchmark.split=..."
        )
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", file.stem)
    named = {SPLITS[part] for part in (re.sub("(set|split)$", "", part.lower()) for part in parts) if part in SPLITS}
    own = SPLITS.get(split.lower())
    if own and len(named) == 1 and own not in named:
        other = named.pop()
        raise BenchmarkError(
            f"annotation file {file} is by its name of the split {other!r}, not {split!r}: say benchmark.split={other}"
        )
