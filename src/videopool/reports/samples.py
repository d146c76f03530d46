"""What the page shows of a sample on which two points differ: question, answers, frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

from videopool.reports.differing import DifferingSample, Record, differing_samples
from videopool.reports.thumbnails import spread, thumbnails
from videopool.results.point import MANIFEST, clip_files, read_json
from videopool.video import READERS, UnreadableClipError

PAIR = ("first", "second")


@dataclass(frozen=True)
class Option:
    """One option of a question.

    Attributes:
        text: of the option.
        right: it is the answer.
        chosen: whether each of the two points chose it.
        likely: the probability that each gave its letter, None where answers were generated.
    """

    text: str
    right: bool
    chosen: tuple[bool, bool]
    likely: tuple[float | None, float | None]


@dataclass(frozen=True)
class Strip:
    """Frames that a point saw.

    Attributes:
        points: which of the two saw them: "first", "second".
        frames: frame index and picture as a data URI, None where it cannot be shown.
        seen: how many frames there were, of which these are some.
    """

    points: tuple[str, ...]
    frames: tuple[tuple[int, str | None], ...]
    seen: int


@dataclass(frozen=True)
class SampleView:
    """One sample beside two points' answers.

    Attributes:
        record: of the first point: id, clip, task, question and answer are the same in both.
        predictions, scores: of the two.
        trouble: why its frames cannot be shown, "" if they can.
    """

    record: Record
    predictions: tuple[str, str]
    scores: tuple[float | None, float | None]
    options: tuple[Option, ...]
    strips: tuple[Strip, ...]
    trouble: str


def sample_views(first: str | Path, second: str | Path, most: int) -> list[SampleView]:
    """The samples on which two points differ most.

    Args:
        first, second: folders of points. Clips are looked up where the first read them.
        most: how many at most.
    """
    found = differing_samples(first, second, most)
    if not found:
        return []
    files, reader = clip_files(Path(first)), _reader(Path(first))
    return [_view(sample, files.get(str(sample.first["clip"])), reader) for sample in found]


def _reader(folder: Path) -> str:
    """The reader that a point read its clips with."""
    identity = (read_json(folder / MANIFEST) or {}).get("identity")
    reader = identity.get("reader") if isinstance(identity, dict) else None
    return reader if reader in READERS else READERS[0]


def _view(sample: DifferingSample, clip: Path | None, reader: str) -> SampleView:
    records = (sample.first, sample.second)
    seen = [[int(index) for index in record.get("frame_indices", ())] for record in records]
    shown = [spread(indices) for indices in seen]
    pictures: dict[int, str] = {}
    trouble = ""
    if clip is None:
        trouble = "it was not recorded where the clip lies"
    else:
        try:
            pictures = thumbnails(clip, [*shown[0], *shown[1]], reader)
        except UnreadableClipError as error:
            trouble = f"the clip cannot be read here: {error.reason}"

    def strip(points: Sequence[int]) -> Strip:
        place = points[0]
        frames = tuple((index, pictures.get(index)) for index in shown[place])
        return Strip(tuple(PAIR[p] for p in points), frames, len(seen[place]))

    strips = [strip([0, 1])] if seen[0] == seen[1] else [strip([0]), strip([1])]
    return SampleView(
        record=sample.first,
        predictions=(str(sample.first["prediction"]), str(sample.second["prediction"])),
        scores=(sample.first["score"], sample.second["score"]),
        options=tuple(_option(place, text, records) for place, text in enumerate(sample.first["options"])),
        strips=tuple(strips),
        trouble=trouble,
    )


def _option(place: int, text: str, records: tuple[Record, Record]) -> Option:
    def chosen(record: Record) -> bool:
        return text == record.get("parsed", record["prediction"])

    def likely(record: Record) -> float | None:
        values: Any = record.get("option_logprobs")
        return exp(values[place]) if values else None

    first, second = records
    right = text == first["answer"]
    return Option(text, right, (chosen(first), chosen(second)), (likely(first), likely(second)))
