"""Sources of training examples: their held-out slices, several mixed into one stream, and the files of two layouts.

The layouts are LLaVA's and VideoChat2-IT's, which PLLaVA was trained on.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from videopool.errors import UserError
from videopool.training_data.conversation import Conversation, ConversationError, Round

ORDER, SHUFFLE = 1, 2  # streams of random numbers
# Tags that stand for a medium somewhere, as <image>, <Video></Video> or <video_frames>; others are text.
PLACEHOLDER = re.compile(r"</?[\w -]*(?:image|img|video|vid|clip|frame|audio|speech|media)[\w -]*/?>", re.IGNORECASE)
USER, ASSISTANT = ("human", "user"), ("gpt", "assistant")

# An entry, its number and the kind of its medium, to fields of an Example; raises ConversationError for a bad entry.
Parse = Callable[[dict[str, Any], int, str], dict[str, Any]]


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

    Raises TrainingDataError for no example, a weight that is not positive, or two examples of one id.
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
        """SHA-256 of texts, names of media and bounds, but not of where the media are stored."""
        digest = hashlib.sha256(repr(float(self.weight)).encode())
        for one in self.examples:
            content = [one.id, one.name, one.kind, asdict(one.conversation), one.start, one.end]
            digest.update(json.dumps(content, sort_keys=True).encode())
        return digest.hexdigest()

    def split(self, share: float, most: int) -> "tuple[Source, list[Example]]":
        """The source without a share of its media (at least one, unless it is 0), and held-out examples about these.

        Of these, `most` are kept, one per medium first. Raises TrainingDataError if nothing would be left to train on.
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

    Each epoch shows every source by its weight, all sources shuffled together. There must be at least one source.
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


def load_llava(path: str | Path, root: str | Path, name: str, weight: float = 1.0, limit: int | None = None) -> Source:
    """Read [{"id", "video" or "image", "conversations": [{"from", "value"}, ...]}].

    This is LLaVA's layout (arXiv 2304.08485), with videos as in Video-LLaVA (arXiv 2311.10122). "human" and "gpt" take
    turns; a "system" turn may come first. The first question holds one placeholder, <video> or <image>, which the
    layout's own place for the clip replaces. Media lie below `root`. `name` and `weight` are Source's; `limit` uses the
    first entries only. Raises TrainingDataError if the file cannot be used.
    """
    return _read(path, root, name, weight, limit, _llava)


def load_videochat2(
    path: str | Path, root: str | Path, name: str, weight: float = 1.0, limit: int | None = None
) -> Source:
    """Read [{"video" or "image", "QA": [{"i", "q", "a"}, ...], "start", "end"}].

    This is the layout of VideoChat2-IT (arXiv 2311.17005). The first instruction "i" stands before the conversation,
    as in PLLaVA's training. An empty "q" asks for a caption. Arguments and errors as in load_llava().
    """
    return _read(path, root, name, weight, limit, _videochat2)


def _read(path: str | Path, root: str | Path, name: str, weight: float, limit: int | None, parse: Parse) -> Source:
    where = f"training_data.sources.{name}"
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise TrainingDataError(f"{where}.limit={limit!r}: give a whole number of at least 1, or null")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingDataError(f"{where}: {path}: {reason}") from error
    if not isinstance(content, list):
        raise TrainingDataError(f"{where}: {path}: a list of entries is expected")
    examples, refused = [], []
    for number, entry in enumerate(content[:limit]):
        place = f"{path}, entry {number}"
        try:
            if not isinstance(entry, dict):
                raise ConversationError("an object is expected")
            kind, medium = _medium(entry)
            relative = os.path.normpath(medium)
            if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
                raise ConversationError(f"{medium!r} leads out of {root}")
            fields = parse(entry, number, kind)
            examples.append(Example(media=Path(root) / relative, name=medium, kind=kind, where=place, **fields))
        except ConversationError as error:
            refused.append(f"{place}: {error}")
    return Source(name, examples, refused, weight)


def _medium(entry: dict[str, Any]) -> tuple[str, str]:
    """Kind and name of an entry's one medium."""
    given = [(kind, entry[kind]) for kind in ("video", "image") if entry.get(kind) not in (None, "", [])]
    if not given:
        raise ConversationError("there is no medium: neither 'video' nor 'image' names a file")
    if len(given) > 1:
        raise ConversationError("it has both a 'video' and an 'image'; one medium is expected")
    kind, name = given[0]
    if isinstance(name, list):
        if len(name) > 1:
            raise ConversationError(f"{len(name)} of {kind!r}, but there is a place for one in a conversation")
        (name,) = name
    if not isinstance(name, str):
        raise ConversationError(f"the field {kind!r} must name a file, got {name!r}")
    return kind, name


def _text(entry: dict[str, Any], field: str) -> str:
    """A field's text, "" if there is none."""
    value = entry.get(field)
    if value is not None and not isinstance(value, str):
        raise ConversationError(f"the field {field!r} must be text, got {value!r}")
    return value or ""


def _seconds(entry: dict[str, Any], field: str) -> float | None:
    """A bound in seconds, if there is one."""
    value = entry.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConversationError(f"the field {field!r} must be a number of seconds, got {value!r}")
    return float(value)


def _round(question: str, answer: str) -> Round:
    if not answer.strip():
        raise ConversationError(f"the question {question[:60]!r} has an empty answer")
    return Round(question, answer)


def _llava(entry: dict[str, Any], number: int, kind: str) -> dict[str, Any]:
    listed = entry.get("conversations")
    if not isinstance(listed, list) or not all(isinstance(turn, dict) for turn in listed):
        raise ConversationError("the field 'conversations' must be a list of turns")
    turns = [(str(turn.get("from")), _text(turn, "value")) for turn in listed]
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else ""
    if not turns or len(turns) % 2:
        raise ConversationError(f"{len(turns)} turns; questions and answers in turn are expected")
    rounds = []
    for (asker, question), (answerer, answer) in zip(turns[::2], turns[1::2], strict=True):
        if asker not in USER or answerer not in ASSISTANT:
            raise ConversationError(f"turns of {asker!r} and {answerer!r}; 'human' and 'gpt' in turn are expected")
        rounds.append(_round(question, answer))
    wanted = f"<{kind}>"
    for place, one in enumerate(rounds):
        tags = PLACEHOLDER.findall(one.question)
        if unknown := [tag for tag in tags if tag not in ("<image>", "<video>")]:
            raise ConversationError(f"{unknown[0]} in question {place} is no placeholder that is known")
        if tags and (place > 0 or len(tags) > 1):
            held = ", ".join(tags)
            raise ConversationError(f"question {place} holds {held}; one {wanted} is expected, in the first question")
        if place == 0 and tags != [wanted]:
            tag = tags[0] if tags else "no placeholder"
            raise ConversationError(f"its medium is a {kind}, but the first question holds {tag}; {wanted} is expected")
    rounds[0] = Round(rounds[0].question.replace(wanted, "").strip(), rounds[0].answer)
    conversation = Conversation(rounds, f"{system.rstrip()} " if system.strip() else "")
    return {"id": f"{number}/{entry.get('id', '')}", "conversation": conversation}  # ids of files are not unique


def _videochat2(entry: dict[str, Any], number: int, kind: str) -> dict[str, Any]:
    bounds = {field: _seconds(entry, field) for field in ("start", "end")}
    listed = entry.get("QA")
    if not isinstance(listed, list) or not listed or not all(isinstance(row, dict) for row in listed):
        raise ConversationError("the field 'QA' must be a list of questions and answers")
    rounds = []
    for row in listed:
        rounds.append(_round(_text(row, "q"), _text(row, "a")))
        question = rounds[-1].question
        if tag := PLACEHOLDER.search(question):
            raise ConversationError(f"{tag.group()} in the question {question[:60]!r} is no placeholder that is known")
    instruction = _text(listed[0], "i")
    return {"id": str(number), **bounds, "conversation": Conversation(rounds, f"{instruction} " if instruction else "")}
