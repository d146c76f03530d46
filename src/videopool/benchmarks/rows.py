"""Rows of annotation files to samples."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from videopool.benchmarks.answers import Choice, answers_of
from videopool.benchmarks.benchmark import Sample
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.options import FILL_UPS, options_of
from videopool.benchmarks.tables import Row

REPEATED = ("refuse", "number")
FRAMES_PER_SECOND = 3.0
# A stretch of a longer video, as in "6H78U_11.1_19.6".
STRETCH = re.compile(r"(?P<clip>.+)_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)")


def samples_of(
    rows: Sequence[Row],
    clips: ClipFolder,
    answers: str = "auto",
    repeated_ids: str = "refuse",
    task_names: Mapping[object, str] | None = None,
    bounds_in_name: bool = False,
    fps: float = FRAMES_PER_SECOND,
) -> list[Sample]:
    """One sample a row.

    Args:
        rows: with video_name, question, and optionally answer; options (see options.py); question_id,
            question_type, start, end (seconds), fps, pair.
        clips: where the clips are.
        answers: what the answers to multiple-choice questions mean; see answers_of.
        repeated_ids: "refuse" a question_id that stands twice, or "number" the later ones.
        task_names: words for question types.
        bounds_in_name: a clip named <clip>_<start>_<end> is that stretch, in seconds, of a longer one.
        fps: of clips that are folders of frames, where a row does not say it.

    Raises:
        BenchmarkError: a row that cannot be used, naming file, place and field.
    """
    ids = ids_of(rows, repeated_ids)
    # A word that is an answer somewhere is an option, not a filled-up place.
    fill_ups = FILL_UPS - {row.text("answer") for row in rows}
    found = [options_of(row, fill_ups) for row in rows]
    asked = [Choice(row, o.texts, row.text("answer"), o.first) for row, o in zip(rows, found, strict=True) if o.texts]
    chosen = iter(answers_of(asked, answers))
    names = {str(kind): str(name) for kind, name in (task_names or {}).items()}
    samples: list[Sample] = []
    for row, sample_id, own in zip(rows, ids, (o.texts for o in found), strict=True):
        name = row.text("video_name", required=True)
        question = row.text("question")
        answer = next(chosen) if own else row.text("answer")
        if not question and (own or answer):
            raise row.error("malformed row: the field 'question' is empty")
        start, end = row.number("start"), row.number("end")
        if bounds_in_name and (stretch := STRETCH.fullmatch(name)):
            name, start, end = stretch["clip"], float(stretch["start"]), float(stretch["end"])
        if start is not None and end is not None and start > end:
            raise row.error(f"the field 'start' ({start:g} s) comes after 'end' ({end:g} s)")
        kind = row.text("question_type")
        samples.append(
            Sample(
                id=sample_id,
                clip=clips.find(name, row.where),
                clip_id=name,
                question=question,
                options=own,
                answer=answer,
                task=names.get(kind, kind),
                start=start,
                end=end,
                fps=frame_rate(row, fps),
                pair=row.text("pair"),
            )
        )
    return samples


def ids_of(rows: Sequence[Row], repeated: str, field: str = "question_id") -> list[str]:
    """The id of each row; its place among the rows where it has none.

    Args:
        repeated: "refuse" an id that stands twice; "number" the second one id#2, and so on.

    Raises:
        BenchmarkError: an id stands twice, naming both places.
    """
    if repeated not in REPEATED:
        raise BenchmarkError(f"benchmark.repeated_ids={repeated!r}: choose one of {', '.join(REPEATED)}")
    ids: list[str] = []
    first: dict[str, Row] = {}
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows):
        own = row.text(field) or f"{number:06d}"
        seen[own] += 1
        if seen[own] > 1 and repeated == "refuse":
            raise row.error(f"the {field} {own!r} stands twice; first in {first[own].where}")
        first.setdefault(own, row)
        ids.append(own if seen[own] == 1 else f"{own}#{seen[own]}")
    return ids


def frame_rate(row: Row, otherwise: float) -> float:
    """The rate of a clip that is a folder of frames. Raises BenchmarkError if it is not above 0."""
    rate = row.number("fps")
    if rate == 0:
        raise row.error("the field 'fps' must be above 0")
    return float(otherwise) if rate is None else rate
