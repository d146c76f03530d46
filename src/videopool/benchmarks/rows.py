"""Samples from the rows of an annotation file, and whether it can hold the split that it is read as."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from videopool.benchmarks.benchmark import Sample
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.columns import LeftOut, Row
from videopool.benchmarks.errors import BenchmarkError, check_choice, spare
from videopool.benchmarks.options import FILL_UPS, options_of
from videopool.notes import note

REPEATED = ("refuse", "number")
BAD_ROWS = ("refuse", "leave_out")
MOST_BAD = 0.01  # share of rows that may be left out; more are no slips but a wrong reading
ANSWERS = ("auto", "text", "index", "number", "letter")
SHOWN = 40  # characters of an option in an error message
FRAMES_PER_SECOND = 3.0
TIMES = frozenset(("start", "end", "fps"))
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SHARD = re.compile(r"[a-z]+-\d{5}-of-\d{5}\.parquet")  # as the hub names a split's files
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
    left_out: LeftOut = None,
) -> list[Sample]:
    """One sample per row, which has video_name, question and, optionally, answer; options (see options.py);
    question_id, question_type, start, end (seconds), fps, pair.

    Args:
        answers: form of the answers to multiple choice: the option's "text", its "index" (from 0), "number" (from 1)
            or "letter". "auto": the text, the place (counted as the columns are: from 1 for a1, a2 ..., else from 0)
            or the letter, the first of these that fits all rows; if none does, each answer is a text or else a place.
        repeated_ids: "refuse" a question_id that stands twice, or "number" the later ones.
        task_names: words for question types.
        bounds_in_name: a clip named <clip>_<start>_<end> is that stretch, in seconds, of <clip>.
        fps: of clips that are folders of frames, for rows without an fps.
        left_out: takes the errors about unusable rows, which get no sample. "auto" then is the form that most rows fit.

    Raises BenchmarkError for an unusable row, naming file, place and field, unless it is left out.
    """
    answered: list[tuple[str, Row, str]] = []
    for row, sample_id in zip(rows, ids_of(rows, repeated_ids, left_out), strict=True):
        try:
            if sample_id:
                answered.append((sample_id, row, row.text("answer")))
        except BenchmarkError as error:
            spare(error, left_out)
    # A word that is an answer somewhere is an option, not a placeholder.
    fill_ups = FILL_UPS - {answer for _, _, answer in answered}
    questions: list[tuple[str, _Question]] = []
    for sample_id, row, answer in answered:
        try:
            questions.append((sample_id, _Question(row, answer, *options_of(row, fill_ups))))
        except BenchmarkError as error:
            spare(error, left_out)
    forms = _forms([question for _, question in questions], answers, left_out is None)
    names = {str(kind): str(name) for kind, name in (task_names or {}).items()}
    samples: list[Sample] = []
    for sample_id, asked in questions:
        try:
            answer = _answer(asked, forms) if asked.options else asked.answer
            samples.append(_sample(asked, answer, sample_id, clips, names, bounds_in_name, fps))
        except BenchmarkError as error:
            spare(error, left_out)
    return samples


def spared(bad_rows: str) -> LeftOut:
    """Where errors about unusable rows go under `benchmark.bad_rows`; None if they are raised."""
    check_choice("benchmark.bad_rows", bad_rows, BAD_ROWS)
    return [] if bad_rows == "leave_out" else None


def tell_left_out(left_out: Sequence[BenchmarkError] | None, name: str, rows: int) -> None:
    """One line on the rows that are left out. Raises the first's error if there are too many of them, or no others."""
    if not left_out:
        return
    if len(left_out) > max(1, MOST_BAD * rows) or len(left_out) == rows:
        raise BenchmarkError(f"{name}: {len(left_out)} of {rows} rows cannot be used; the first: {left_out[0]}")
    note(f"{name}: {len(left_out)} of {rows} rows cannot be used and are left out; the first: {left_out[0]}")


def ids_of(rows: Sequence[Row], repeated: str, left_out: LeftOut = None, required: bool = False) -> list[str]:
    """The question_id of each row, or else (not if it is `required`) its place among the rows.

    It is "" for a row that is left out. `repeated` ids: "refuse" them with a BenchmarkError that names both places, or
    "number" the second id#2, and so on.
    """
    check_choice("benchmark.repeated_ids", repeated, REPEATED)
    ids: list[str] = []
    first: dict[str, Row] = {}
    times: dict[str, int] = {}  # of ids that stand more than once
    for number, row in enumerate(rows):
        try:
            own = row.text("question_id", required) or f"{number:06d}"
            if first.setdefault(own, row) is row:
                ids.append(own)
                continue
            if repeated == "refuse":
                raise row.error(f"the question_id {own!r} stands twice; first in {first[own].where}")
            times[own] = times.get(own, 1) + 1
            ids.append(f"{own}#{times[own]}")
        except BenchmarkError as error:
            spare(error, left_out)
            ids.append("")
    return ids


def times_of(row: Row, fps: float, bounds: tuple[float, float] | None = None) -> dict[str, Any]:
    """A sample's start and end in seconds (or else `bounds`) and fps, by a row or else the given rate.

    Raises BenchmarkError if the start comes after the end, or the rate is 0.
    """
    if bounds is None and TIMES.isdisjoint(row.cells):
        return {"fps": float(fps)}
    start, end, rate = row.number("start"), row.number("end"), row.number("fps")
    start, end = bounds or (start, end)
    if start is not None and end is not None and start > end:
        raise row.error(f"the field 'start' ({start:g} s) comes after 'end' ({end:g} s)")
    if rate == 0:
        raise row.error("the field 'fps' must be above 0")
    return {"start": start, "end": end, "fps": float(fps) if rate is None else rate}


def check_split(
    split: str, file: Path, questions: int = 0, sizes: Mapping[str, int] | None = None, hub_split: str | None = None
) -> None:
    """Raises BenchmarkError for a file with the name of another split, or with more questions than the split.

    Points of different splits must not be compared. `split` is as in the benchmark's id; the file's name is only
    compared with names for train, val and test. `sizes` are the numbers of questions of known splits; `hub_split` is
    the name of the split in names of parquet files on the hub, where it is another.
    """
    if sizes and questions > sizes.get(split, questions):
        raise BenchmarkError(
            f"annotation file {file} has {questions} questions, the split {split!r} has {sizes[split]}: "
            "it is another one's; say benchmark.split=..."
        )
    words = (re.sub("(set|split)$", "", word.lower()) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", file.stem))
    named = {SPLITS[word] for word in words if word in SPLITS}
    own = SPLITS.get(hub_split if hub_split and SHARD.fullmatch(file.name) else split.lower())
    if own and len(named) == 1 and own not in named:
        other = named.pop()
        raise BenchmarkError(
            f"annotation file {file} is by its name of the split {other!r}, not {split!r}: say benchmark.split={other}"
        )


class _Question(NamedTuple):
    """A row with its answer as the sheet gives it, its options, and the number of the first option (0 or 1)."""

    row: Row
    answer: str
    options: tuple[str, ...]
    first: int

    def option(self, form: str) -> str | None:
        """The option that an answer of this form names; None if there is none."""
        answer, options = self.answer, self.options
        if form == "text":
            return answer if answer in options else None
        if form == "letter":
            place = ascii_uppercase.find(answer.upper()) if len(answer) == 1 else -1
        else:
            first = {"index": 0, "number": 1, "place": self.first}[form]
            place = int(answer) - first if re.fullmatch("[0-9]{1,9}", answer) else -1
        return options[place] if 0 <= place < len(options) else None


def _sample(
    asked: _Question,
    answer: str,
    id: str,
    clips: ClipFolder,
    names: Mapping[str, str],
    bounds_in_name: bool,
    fps: float,
) -> Sample:
    row = asked.row
    name, question, kind = row.text("video_name", required=True), row.text("question"), row.text("question_type")
    if not question and (asked.options or answer):
        raise row.error("malformed row: the field 'question' is empty")
    bounds = None
    if bounds_in_name and (stretch := STRETCH.fullmatch(name)):
        name, bounds = stretch["clip"], (float(stretch["start"]), float(stretch["end"]))
    return Sample(
        id=id, clip=clips.find(name, row.where), clip_id=name, question=question, options=asked.options,
        answer=answer, task=names.get(kind, kind), pair=row.text("pair") if "pair" in row.cells else "",
        **times_of(row, fps, bounds),
    )  # fmt: skip


def _forms(questions: Sequence[_Question], form: str, all_fit: bool) -> Sequence[str]:
    """The forms of answers, in order. Of "auto": one that fits all rows, else two (`all_fit`) or the most fitting."""
    check_choice("benchmark.answers", form, ANSWERS)
    if form != "auto":
        return (form,)
    given = [question for question in questions if question.options and question.answer]
    fitting = {f: sum(q.option(f) is not None for q in given) for f in ("text", "place", "letter")}
    best = max(fitting, key=fitting.__getitem__)
    return (best,) if fitting[best] == len(given) or not all_fit else ("text", "place")


def _answer(question: _Question, forms: Sequence[str]) -> str:
    if not question.answer:
        return ""
    for form in forms:
        if (answer := question.option(form)) is not None:
            return answer
    options = [option if len(option) <= SHOWN else f"{option[:SHOWN]}..." for option in question.options]
    hint = "" if "text" in forms else f" (benchmark.answers={forms[0]})"
    if not hint and question.first:
        hint = ", counted from 1 as the columns are (benchmark.answers=index counts from 0)"
    answer = question.answer[: 2 * SHOWN]
    raise question.row.error(f"the answer {answer!r} is not among the options {options}{hint}")
