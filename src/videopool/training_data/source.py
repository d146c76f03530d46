"""A source of training examples, and its held-out slice."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from videopool.training_data.conversation import Conversation
from videopool.training_data.errors import TrainingDataError

MEDIA = ("video", "image")


@dataclass(frozen=True)
class Example:
    """A conversation about one clip or image.

    Attributes:
        id: names it within its source.
        media: file, or folder of frames.
        name: of the medium within its source; examples about one medium share it.
        kind: "video" or "image"; an image is a clip of one frame.
        where: file and entry, for messages.
        start, end: bounds in seconds, or None.
    """

    id: str
    media: Path
    name: str
    kind: str
    conversation: Conversation
    where: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Source:
    """Examples of one data set.

    Attributes:
        name: as the configuration calls it.
        examples: those that can be used.
        refused: entries that cannot, each with where it stands and why, in one line.
        weight: how often an epoch shows each example; 0.5 shows one half, and the next epoch the other.

    Raises:
        TrainingDataError: no example, a weight that is not positive, or two examples of one id.
    """

    name: str
    examples: Sequence[Example]
    refused: Sequence[str] = field(default=())
    weight: float = 1.0

    def __post_init__(self) -> None:
        number = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        if not number or not 0 < self.weight < math.inf:
            raise TrainingDataError(f"training_data.sources.{self.name}.weight={self.weight!r}: give a number above 0")
        if not self.examples:
            told = f"; the first of {len(self.refused)} refused: {self.refused[0]}" if self.refused else ""
            raise TrainingDataError(f"training_data.sources.{self.name}: there is no usable example{told}")
        if len({example.id for example in self.examples}) < len(self.examples):
            raise TrainingDataError(f"training_data.sources.{self.name}: two examples have one id")

    @property
    def digest(self) -> str:
        """SHA-256 of what is learned from the source: texts, names of media and bounds; not where they lie."""
        digest = hashlib.sha256(repr(float(self.weight)).encode())
        for example in self.examples:
            said = [example.id, example.name, example.kind, asdict(example.conversation), example.start, example.end]
            digest.update(json.dumps(said, sort_keys=True).encode())
        return digest.hexdigest()

    def split(self, share: float, most: int, seed: int) -> "tuple[Source, list[Example]]":
        """What is trained on, and examples that are held out with all others about their media.

        Args:
            share: of the media, at least one unless it is 0.
            most: examples to keep of those held out, one a medium first.
            seed: which media; the same for a medium whatever else is in the source.

        Raises:
            TrainingDataError: nothing would be left to train on.
        """
        names = sorted({example.name for example in self.examples}, key=lambda name: _draw(seed, name))
        held = set(names[: math.ceil(share * len(names))])
        kept = [example for example in self.examples if example.name not in held]
        if not kept:
            raise TrainingDataError(
                f"training_data.sources.{self.name}: holding out {share:g} leaves nothing to train on"
            )
        turns: dict[str, int] = {}
        ranked = []
        for example in self.examples:
            if example.name in held:
                turns[example.name] = turns.get(example.name, -1) + 1
                ranked.append((turns[example.name], _draw(seed, example.name), example))
        ranked.sort(key=lambda one: one[:2])
        return replace(self, examples=kept), [example for *_, example in ranked[:most]]

    def part(self, share: float, seed: int) -> "Source":
        """All that is said about a share of the media, at least one of them. A smaller share lies within a larger."""
        names = sorted({example.name for example in self.examples}, key=lambda name: _draw(seed, name))
        kept = set(names[: math.ceil(share * len(names))])
        return replace(self, examples=[example for example in self.examples if example.name in kept])

    def media(self, kind: str) -> int:
        """How many clips ("video") or images ("image") it has."""
        return len({example.name for example in self.examples if example.kind == kind})


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()
