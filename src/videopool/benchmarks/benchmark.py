"""A benchmark: samples, where they come from, and how they are grouped."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from string import ascii_uppercase

from videopool.benchmarks.errors import BenchmarkError
from videopool.video import printable

SCORINGS = ("likelihood", "cloze", "generate")


@dataclass(frozen=True)
class Sample:
    """One question on one clip.

    Attributes:
        id: stable across points.
        clip: file or folder; the name under which its records are clustered is `clip_id`.
        clip_id: the clip's name within the benchmark.
        question: "" asks for a description.
        options: of a multiple-choice question, the answer among them; () for an open one.
        answer: the right answer; "" if unknown, and then nothing is scored.
        task: kind of question, "" if there is only one.
        start, end: bounds in seconds, or None.
        fps: frames per second, where the clip is a folder of frames.
        pair: names the samples that are judged together, whose answers should agree; "" if there are none.
        judged: the answer is a reference for a judge; comparing words with it says nothing, so nothing is scored.
    """

    id: str
    clip: Path
    clip_id: str
    question: str
    options: tuple[str, ...] = ()
    answer: str = ""
    task: str = ""
    start: float | None = None
    end: float | None = None
    fps: float = 3.0
    pair: str = ""
    judged: bool = False

    def __post_init__(self) -> None:
        for name in ("id", "clip_id"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def answer_index(self) -> int:
        """Place of the answer among the options."""
        return self.options.index(self.answer)

    @property
    def chance(self) -> float | None:
        """Score of a guess, 0..1; None for an open question."""
        return max(1, self.options.count(self.answer)) / len(self.options) if self.options else None


@dataclass(frozen=True)
class Benchmark:
    """Samples of one split of one benchmark.

    Attributes:
        id: name and split, as in "shapes/test".
        split: which part of the data this is.
        samples: in no particular order.
        annotation_hash: SHA-256 of the files that the samples were read from.
        groups: names for sets of tasks; a task may be in none.
        headline: the group whose score stands for the benchmark; None for all tasks.
        scoring: of multiple choice: "likelihood" of the option letters; "cloze", likelihood of the options' texts as
            answers to the question put without options, a mean over their tokens; or "generate" an answer and parse it.
        max_new_tokens: of generated answers.
        axes: what a judge grades answers on: by the axis, the task of the samples whose answers it grades; empty
            where a judge says whether they are right.
    """

    id: str
    split: str
    samples: Sequence[Sample]
    annotation_hash: str
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    headline: str | None = None
    scoring: str = "likelihood"
    max_new_tokens: int = 32
    axes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise BenchmarkError(f"benchmark {self.id}: no usable sample was found")
        if self.scoring not in SCORINGS:
            raise BenchmarkError(f"benchmark.scoring={self.scoring!r}: choose one of {', '.join(SCORINGS)}")
        if self.headline is not None and self.headline not in self.groups:
            raise BenchmarkError(f"benchmark.headline={self.headline!r}: groups are {', '.join(self.groups)}")
        seen: set[str] = set()
        for sample in self.samples:
            if sample.id in seen:
                raise BenchmarkError(f"benchmark {self.id}: sample id {sample.id!r} stands twice")
            seen.add(sample.id)
            if len(sample.options) > len(ascii_uppercase) and self.scoring != "cloze":
                raise BenchmarkError(
                    f"benchmark {self.id}: sample {sample.id!r} has {len(sample.options)} options; there are letters "
                    f"for {len(ascii_uppercase)} (benchmark.scoring=cloze needs none)"
                )

    def in_headline(self, task: str) -> bool:
        """Whether a task counts towards the score that stands for the benchmark."""
        return self.headline is None or task in self.groups[self.headline]

    @property
    def task_weights(self) -> dict[str, float]:
        """Weights of tasks in the score: each axis counts alike. Empty where each sample does."""
        return {task: float(count) for task, count in Counter(self.axes.values()).items()}

    @property
    def samples_hash(self) -> str:
        """SHA-256 over all that samples say, whatever their order; not where their clips lie, nor what is in them."""
        lines = sorted(json.dumps({**asdict(sample), "clip": None}, sort_keys=True) for sample in self.samples)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def inside(root: Path, name: str, where: str) -> Path:
    """A path below root. Raises BenchmarkError for a name that leads out of it.

    Judged by the name alone: links that the user has put below root may point anywhere.
    """
    relative = os.path.normpath(name)
    if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
        raise BenchmarkError(f"{where}: {name!r} leads out of {root}")
    return root / name


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def read_json(path: Path) -> object:
    """A JSON file. Raises BenchmarkError if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchmarkError(f"annotation file {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"annotation file {path}: {error}") from error
