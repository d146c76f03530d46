"""Sources of training examples, their held-out slices, and several sources mixed into one stream."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from videopool.errors import UserError
from videopool.training_data.conversation import Conversation

ORDER, SHUFFLE = 1, 2  # streams of random numbers


class TrainingDataError(UserError, ValueError):
    """Training data that cannot be used: which file or source, and what to do, in one line."""


@dataclass(frozen=True)
class Example:
    """A conversation about one clip or image."""

    id: str  # names it within its source
    media: Path  # file, or folder of frames
    name: str  # of the medium within its source; examples about one medium share it
    kind: str  # "video" or "image"; an image is a clip of one frame
    conversation: Conversation
    where: str  # file and entry, for messages
    start: float | None = None  # bounds in seconds
    end: float | None = None


@dataclass(frozen=True)
class Source:
    """Examples of one data set.

    Raises:
        TrainingDataError: no example, a weight that is not positive, or two examples of one id.
    """

    name: str  # as in the configuration
    examples: Sequence[Example]  # the usable entries
    refused: Sequence[str] = ()  # the other entries: a line each, with place and reason
    weight: float = 1.0  # how often an epoch shows each example; 0.5 shows one half, and the next epoch the other

    def __post_init__(self) -> None:
        number = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        if not number or not 0 < self.weight < math.inf:
            raise TrainingDataError(f"training_data.sources.{self.name}.weight={self.weight!r}: give a number above 0")
        if not self.examples:
            first = f"; the first of {len(self.refused)} refused: {self.refused[0]}" if self.refused else ""
            raise TrainingDataError(f"training_data.sources.{self.name}: there is no usable example{first}")
        if len({example.id for example in self.examples}) < len(self.examples):
            raise TrainingDataError(f"training_data.sources.{self.name}: two examples have one id")

    @property
    def digest(self) -> str:
        """SHA-256 of the content: texts, names of media and bounds, but not where the media are stored."""
        digest = hashlib.sha256(repr(float(self.weight)).encode())
        for one in self.examples:
            content = [one.id, one.name, one.kind, asdict(one.conversation), one.start, one.end]
            digest.update(json.dumps(content, sort_keys=True).encode())
        return digest.hexdigest()

    def split(self, share: float, most: int) -> "tuple[Source, list[Example]]":
        """The source without a share of its media, and held-out examples about these.

        Args:
            share: of the media, at least one unless it is 0.
            most: number of held-out examples to keep, one per medium first.

        Raises:
            TrainingDataError: nothing would be left to train on.
        """
        held = self._drawn(share)
        kept = [example for example in self.examples if example.name not in held]
        if not kept:
            raise TrainingDataError(
                f"training_data.sources.{self.name}: holding out {share:g} leaves nothing to train on"
            )
        turns = Counter[str]()
        ranked = []
        for example in self.examples:
            if example.name in held:
                turns[example.name] += 1
                ranked.append((turns[example.name], _draw(example.name), example))
        ranked.sort(key=lambda row: row[:2])
        return replace(self, examples=kept), [example for *_, example in ranked[:most]]

    def part(self, share: float) -> "Source":
        """All examples about a share of the media, at least one medium. A smaller share lies within a larger one."""
        kept = self._drawn(share)
        return replace(self, examples=[example for example in self.examples if example.name in kept])

    def _drawn(self, share: float) -> set[str]:
        """Names of a share of the media, drawn by hashes, so that a draw depends little on the other media."""
        names = sorted({example.name for example in self.examples}, key=_draw)
        return set(names[: math.ceil(share * len(names))])

    def media(self, kind: str) -> int:
        """Number of clips ("video") or images ("image")."""
        return len({example.name for example in self.examples if example.kind == kind})


def _draw(name: str) -> str:
    return hashlib.sha256(f"0\0{name}".encode()).hexdigest()


class Mixture:
    """An endless stream of examples in epochs, the same for the same seed, wherever it is entered.

    Each epoch shows every source by its weight, all sources shuffled together.

    Args:
        sources: at least one.
        seed: of all order.
    """

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        self.sources, self.seed = list(sources), seed
        self.epoch = lru_cache(maxsize=2)(self._epoch)  # a batch may span two epochs
        self._near = 0  # epoch of the last example

    def _epoch(self, number: int) -> list[tuple[int, int]]:
        """Source and place within it of each example of an epoch, in order."""
        chosen: list[tuple[int, int]] = []
        for place, source in enumerate(self.sources):
            size = len(source.examples)
            # Passes through the source, each in an order of its own, are dealt out to epochs without a gap.
            for shown in range(_shown(source, number), _shown(source, number + 1)):
                chosen.append((place, int(_permutation(self.seed, place, shown // size, size)[shown % size])))
        order = np.random.default_rng([SHUFFLE, self.seed, number]).permutation(len(chosen))
        return [chosen[i] for i in order]

    def length(self, epochs: int) -> int:
        """Number of examples in the first epochs."""
        return sum(_shown(source, epochs) for source in self.sources)

    def at(self, place: int) -> tuple[int, Example]:
        """Epoch and example at a place of the stream."""
        epoch = self._near
        while self.length(epoch + 1) <= place:
            epoch += 1
        while self.length(epoch) > place:
            epoch -= 1
        self._near = epoch
        source, number = self.epoch(epoch)[place - self.length(epoch)]
        return epoch, self.sources[source].examples[number]


def _shown(source: Source, epochs: int) -> int:
    return int(source.weight * len(source.examples) * epochs)


@lru_cache(maxsize=16)
def _permutation(seed: int, source: int, number: int, size: int) -> np.ndarray:
    return np.random.default_rng([ORDER, seed, source, number]).permutation(size)
