"""A benchmark: its samples, their files, and how tasks are grouped."""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from string import ascii_uppercase

from videopool.benchmarks.errors import BenchmarkError, check_choice, listed
from videopool.video import printable

SCORINGS = ("likelihood", "cloze", "generate")
AVERAGES = ("samples", "tasks")
SUBMISSIONS = ("index", "letter")
_number = lru_cache(maxsize=1024, typed=True)(json.dumps)  # of seconds, which repeat


@dataclass(frozen=True)
class Sample:
    """One question on one clip."""

    id: str  # unique, and stable across points
    clip: Path  # file or folder
    clip_id: str  # the clip's name within the benchmark; records are clustered by it
    question: str  # "" asks for a description
    options: tuple[str, ...] = ()  # with the right one among them; () for an open question
    answer: str = ""  # the right answer; "" if unknown, so that the sample gets no score
    task: str = ""  # kind of question; "" if there is only one
    start: float | None = None  # seconds
    end: float | None = None
    fps: float = 3.0  # frames per second of a clip that is a folder of frames
    pair: str = ""  # shared by two samples whose answers should agree, so that they are judged together
    judged: bool = False  # only a judge can compare with `answer`, so that the sample has no score without one

    def __post_init__(self) -> None:
        for name in ("id", "clip_id"):
            if not (text := getattr(self, name)).isascii():
                object.__setattr__(self, name, printable(text))


@dataclass(frozen=True)
class Benchmark:
    """Samples of one split of one benchmark.

    Raises BenchmarkError for no samples, a repeated id, an unknown scoring or headline, or more options than letters.
    """

    id: str  # name and split, as in "shapes/test"
    split: str
    samples: Sequence[Sample]  # in no particular order
    annotation_hash: str  # SHA-256 of the annotation files
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)  # named sets of tasks; a loader may pass None
    headline: str | None = None  # the group whose score stands for the benchmark; None: all tasks
    # Multiple choice: "likelihood" of the option letters; "cloze", likelihood of each option's text (mean over its
    # tokens) as answer to the question without options; or "generate" an answer and parse it.
    scoring: str = "likelihood"
    max_new_tokens: int = 32  # of generated answers
    axes: Mapping[str, str] = field(default_factory=dict)  # by axis of a judge, the task that it grades
    average: str = "samples"  # of the score; "tasks": the mean of the tasks' means
    shuffle_options: int | None = None  # the seed of the order of each question's options; None: as they are
    submission: str | None = None  # answers go to a file for a server, as "index" (from 0) or "letter" of the option

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", self.groups or {})
        if not self.samples:
            raise BenchmarkError(f"benchmark {self.id}: no usable sample was found")
        check_choice("benchmark.scoring", self.scoring, SCORINGS)
        check_choice("benchmark.average", self.average, AVERAGES)
        if self.submission is not None:
            check_choice("benchmark.submission", self.submission, SUBMISSIONS)
        if self.headline is not None and self.headline not in self.groups:
            raise BenchmarkError(f"benchmark.headline={self.headline!r}: groups are {', '.join(self.groups)}")
        seen: set[str] = set()
        for sample in self.samples:
            if sample.id in seen:
                raise BenchmarkError(f"benchmark {self.id}: the sample id {sample.id!r} stands twice")
            seen.add(sample.id)
            if len(sample.options) > len(ascii_uppercase) and self.scoring != "cloze":
                raise BenchmarkError(
                    f"benchmark {self.id}: sample {sample.id!r} has {len(sample.options)} options; there are letters "
                    f"for {len(ascii_uppercase)} (benchmark.scoring=cloze needs none)"
                )

        if self.shuffle_options is not None:
            object.__setattr__(self, "samples", [shuffled(sample, self.shuffle_options) for sample in self.samples])

    def in_headline(self, task: str) -> bool:
        """Whether a task counts towards the score that stands for the benchmark."""
        return self.headline is None or task in self.groups[self.headline]

    @property
    def task_weights(self) -> dict[str, float]:
        """Weights of tasks in the score, so that all axes or tasks count alike; empty if all samples do."""
        if self.average == "tasks":
            return dict.fromkeys(sorted({sample.task for sample in self.samples}), 1.0)
        return {task: float(count) for task, count in Counter(self.axes.values()).items()}

    def roles(self, judged: bool) -> dict[str, object]:
        """Which tasks make the score, its groups and a judge's axes, with their weights: what metrics_of needs."""
        tasks = sorted({str(sample.task) for sample in self.samples})
        return {
            "headline": [task for task in tasks if self.in_headline(task)],
            "groups": {name: list(members) for name, members in self.groups.items()},
            "axes": dict(self.axes) if judged else {},
            "weights": self.task_weights,
        }

    @property
    def samples_hash(self) -> str:
        """SHA-256 of all samples, whatever their order; of neither paths nor contents of clips."""
        lines = sorted(map(line_of, self.samples))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def line_of(sample: Sample) -> str:
    """A sample without its path as json.dumps(..., sort_keys=True) writes it, in a third of the time.

    The largest sheets have 72,821 rows, and each point hashes them.
    """
    start, end, fps = map(_number, (sample.start, sample.end, sample.fps))
    options, judged = ", ".join(map(quoted, sample.options)), "true" if sample.judged else "false"
    return (
        f'{{"answer": {quoted(sample.answer)}, "clip": null, "clip_id": {quoted(sample.clip_id)}, "end": {end}, '
        f'"fps": {fps}, "id": {quoted(sample.id)}, "judged": {judged}, "options": [{options}], '
        f'"pair": {quoted(sample.pair)}, "question": {quoted(sample.question)}, "start": {start}, '
        f'"task": {quoted(sample.task)}}}'
    )


def shuffled(sample: Sample, seed: int) -> Sample:
    """A sample with its options in another order, which seed and sample id alone determine. Raises BenchmarkError."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise BenchmarkError(f"benchmark.shuffle_options={seed!r}: give a seed of at least 0, or null")
    order = list(sample.options)
    random.Random(f"{seed} {sample.id}").shuffle(order)
    return replace(sample, options=tuple(order))


def missing_clips(benchmark: Benchmark) -> list[str]:
    """Sorted names of the clips that are not on disk."""
    paths = {sample.clip_id: sample.clip for sample in benchmark.samples}
    return sorted(name for name, path in paths.items() if not os.path.exists(path))


def require_clips(benchmark: Benchmark) -> str:
    """One line on the clips that are not on disk; "" if all are there. Raises BenchmarkError if none is."""
    missing, clips = missing_clips(benchmark), len({sample.clip_id for sample in benchmark.samples})
    if not missing:
        return ""
    if len(missing) == clips:
        path = benchmark.samples[0].clip
        raise BenchmarkError(f"benchmark {benchmark.id}: none of its {clips} clips is there, not even {path}")
    lost = set(missing)
    asked = sum(sample.clip_id in lost for sample in benchmark.samples)
    share = f"{len(missing)} of {clips} clips ({100 * len(missing) / clips:.1f} %)"
    samples = f"{asked} of {len(benchmark.samples)} samples"
    return f"benchmark {benchmark.id}: {share} are not there, with {samples}: {listed(missing)}"


def repeated_answers(benchmark: Benchmark) -> str:
    """One line on questions whose right answer is among the options more than once; "" if there are none."""
    ids = [sample.id for sample in benchmark.samples if sample.options.count(sample.answer) > 1]
    if not ids:
        return ""
    share = f"{len(ids)} of {len(benchmark.samples)} samples"
    return (
        f"benchmark {benchmark.id}: in {share} the right answer stands among the options more than once, "
        f"and each of them counts as right: {listed(ids)}"
    )


def contradictions(benchmark: Benchmark) -> str:
    """One line on open questions that are asked of a clip again with another answer; "" if there are none.

    They bound the exact match: of a question's answers, one alone can be given.
    """
    answers: dict[tuple[str, str], Counter[str]] = {}
    for sample in benchmark.samples:
        if sample.answer and not sample.options and not sample.judged:
            answers.setdefault((sample.clip_id, sample.question), Counter())[sample.answer] += 1
    lost = sum(count.total() - max(count.values()) for count in answers.values())
    if not lost:
        return ""
    asked = sum(count.total() for count in answers.values())
    contradicted = sum(count.total() for count in answers.values() if len(count) > 1)
    return (
        f"benchmark {benchmark.id}: {contradicted} of {asked} questions are asked of their clip again, with another "
        f"answer: exact match cannot pass {100 * (1 - lost / asked):.1f} %"
    )


def inside(root: Path, name: str, where: str) -> Path:
    """A path below root. Raises BenchmarkError for a name that leads out of it.

    Only the name counts: links that the user put below root may point anywhere.
    """
    relative = os.path.normpath(name)
    if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
        raise BenchmarkError(f"{where}: {name!r} leads out of {root}")
    return root / name


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 of names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
