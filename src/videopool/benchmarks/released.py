"""Multiple-choice sets in the layouts in which they are released: JSON, nested or in several files, and parquet.

What a set's YAML says of its columns and traps is all that differs between them: conf/benchmark/released.yaml.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from videopool.benchmarks.benchmark import Benchmark, hash_files
from videopool.benchmarks.clip_folder import ClipFolder
from videopool.benchmarks.collecting import without_collector
from videopool.benchmarks.columns import Columns, LeftOut, Row, renamed
from videopool.benchmarks.errors import BenchmarkError, check_choice, spare
from videopool.benchmarks.nested import files_of, read_nested
from videopool.benchmarks.options import FILL_UPS, layout_of, options_of
from videopool.benchmarks.rows import FRAMES_PER_SECOND, check_split, samples_of, spared, tell_left_out
from videopool.benchmarks.subtitles import Subtitles
from videopool.notes import note

KEY = "benchmark.annotations"
UNANSWERED = ("keep", "leave_out", "only")
JOINT = " + "  # between several kinds of one question
NEEDED = ("video_name", "question")
LETTERED = re.compile(r"\(?([A-Z])[.):]\s*(.*)", re.DOTALL)
ANSWERED = re.compile(r"\(?([A-Z])(?:[.):].*)?", re.DOTALL)
LINE = re.compile(r"(?:^|\n)[ \t]*(?=\(?[A-Z][.):])")  # where an option may begin in a question's text
HEADING = re.compile(r"\n[ \t]*(?:options|choices):?\Z", re.IGNORECASE)  # of the list of options
FIELD = re.compile(r"\{([^{}]+)\}")


@without_collector()
def load_released(
    root: str | Path,
    annotations: str | Path,
    id: str,
    split: str,
    columns: Columns | None = None,
    levels: Sequence[str] = (),
    inner: str | None = None,
    parts: Sequence[str] | None = None,
    same_options: Sequence[str] = (),
    answers: str = "auto",
    unanswered: str = "keep",
    bad_rows: str = "refuse",
    subtitles: Mapping[str, Any] | None = None,
    repeated_ids: str = "refuse",
    task_names: Mapping[object, str] | None = None,
    fps: float = FRAMES_PER_SECOND,
    prefixes: Sequence[str] = (),
    recursive: bool = False,
    split_sizes: Mapping[str, int] | None = None,
    split_kinds: Mapping[str, Sequence[str]] | None = None,
    hub_split: str | None = None,
    limit: int | None = None,
    **settings: Any,
) -> Benchmark:
    """Read a file, or the files of a folder; options may stand in lists, columns or the question's text.

    Options that begin with their letters lose them, because prompts add letters again. A question of several kinds has
    one task, named by all of them, and counts in a group for each.

    conf/benchmark/released.yaml explains the arguments; `settings` are Benchmark's. Raises BenchmarkError for a missing
    folder or file, or an unusable row, naming it.
    """
    check_choice("benchmark.unanswered", unanswered, UNANSWERED)
    clips, files = ClipFolder(root, prefixes, recursive), files_of(Path(annotations), parts, KEY)
    left_out = spared(bad_rows)
    read = [read_nested(file, KEY, levels, inner, left_out) for file in files]
    named = [row for rows in read for row in _named(rows, columns or {}, left_out)]
    every = len(named) + len(left_out or ())
    for file in files:
        check_split(split, file, len(named), split_sizes, hub_split)
    shown = None if subtitles is None else Subtitles(**subtitles)
    rows = []
    for row, source in named:
        try:
            plain = _plain(row, same_options)
            rows.append(plain if shown is None else shown.before(plain, source))
        except BenchmarkError as error:
            spare(error, left_out)
    answered = [bool(row.text("answer")) for row in rows]
    if unanswered != "keep":
        rows = [row for row, known in zip(rows, answered, strict=True) if known == (unanswered == "leave_out")]
        note(f"benchmark {id}/{split}: {len(rows)} of {len(answered)} questions, by benchmark.unanswered={unanswered}")
    samples = samples_of(rows, clips, answers, repeated_ids, task_names, fps=fps, left_out=left_out)
    _check_kinds(split, files[0], {sample.task for sample in samples}, split_kinds or {})
    tell_left_out(left_out, f"benchmark {id}/{split}", every)
    settings["groups"] = settings.get("groups") or _groups(sorted({sample.task for sample in samples}))
    return Benchmark(f"{id}/{split}", split, samples[:limit], hash_files(files), **settings)


def _check_kinds(split: str, file: Path, found: set[str], kinds: Mapping[str, Sequence[str]]) -> None:
    """Raises BenchmarkError for a kind of question that another split has and this one has not."""
    for other, names in kinds.items():
        if strange := sorted((found & set(names)) - set(kinds.get(split, names))):
            raise BenchmarkError(
                f"annotation file {file} has questions of the kind {strange[0]!r}, which are of the split {other!r}, "
                f"not {split!r}: say benchmark.split={other}"
            )


def _groups(tasks: Sequence[str]) -> dict[str, list[str]]:
    """By kind, the tasks that are of this kind among others; none if no task is of several."""
    if not any(JOINT in task for task in tasks):
        return {}
    kinds = sorted({kind for task in tasks for kind in task.split(JOINT)})
    return {kind: [task for task in tasks if kind in task.split(JOINT)] for kind in kinds}


def _named(rows: Sequence[Row], columns: Columns, left_out: LeftOut) -> list[tuple[Row, Row]]:
    """Rows under the names that readers look for, each with the row that it comes from.

    A name in `columns` may say alternatives, "video_path|key": the first that is there counts; if none is, a field that
    is not needed stays out. "{file}/{video}" is made of several columns.
    """
    alike: dict[tuple[str, ...], list[int]] = {}  # by their columns, places of rows
    for place, row in enumerate(rows):
        alike.setdefault(tuple(row.cells), []).append(place)
    result: dict[int, tuple[Row, Row]] = {}
    for names, places in alike.items():
        own = {field: _own(names, field, wanted) for field, wanted in columns.items() if wanted is not None}
        made = {f"{field} made": name for field, name in own.items() if isinstance(name, str) and FIELD.search(name)}
        plan = {field: f"{field} made" if f"{field} made" in made else name for field, name in own.items()}
        sources: dict[int, Row] = {}
        for place in places:
            try:
                sources[place] = _source(rows[place], made, own.get("question_type"))
            except BenchmarkError as error:
                spare(error, left_out)
        try:
            named = renamed(list(sources.values()), plan, NEEDED)
            result |= zip(sources, zip(named, sources.values(), strict=True), strict=True)
        except BenchmarkError as error:  # of all these rows
            if len(places) == len(rows):
                raise
            for _ in sources:
                spare(error, left_out)
    return [result[place] for place in sorted(result)]


def _source(row: Row, made: Mapping[str, str], kind: object) -> Row:
    """A row with the columns that are made of others, and with one text for a question of several kinds."""
    if not made and not isinstance(kind, str):
        return row
    cells = dict(row.cells)
    for name, pattern in made.items():
        cells[name] = FIELD.sub(lambda match: row.text(match[1], required=True), pattern)
    if isinstance(kind, str) and isinstance(kinds := cells.get(kind), list):
        cells[kind] = JOINT.join(sorted({row.as_text(one, kind) for one in kinds}))
    return row.with_cells(cells)


def _own(names: Sequence[str], field: str, wanted: str | Sequence[str]) -> str | list[str] | None:
    """The file's names for a field: of alternatives, the first that is there; [] for none."""
    if not isinstance(wanted, str):
        chosen = [_own(names, field, one) for one in wanted]
        return [name for name in chosen if isinstance(name, str)]
    alternatives = wanted.split("|")
    for name in alternatives:
        if all(part in names for part in FIELD.findall(name) or [name]):
            return name
    if field not in NEEDED:
        return []
    return next(part for part in FIELD.findall(alternatives[0]) or alternatives if part not in names)


def _plain(row: Row, same_options: Sequence[str]) -> Row:
    """A row whose options have no letters, in a list if they had some or stood in the question; so has its answer."""
    asked, answer = row.text("question"), row.text("answer")
    question, in_text = split_options(asked) if "\n" in asked else (asked, [])
    options, _ = options_of(row)
    bare = without_letters(options) or in_text
    if bare and (match := ANSWERED.fullmatch(answer)):
        answer = match[1]
    choices = options or bare or same_options
    if choices and answer in FILL_UPS and answer not in choices:
        answer = ""
    cells = {**row.cells, "question": question, "answer": answer}
    series, lists, _ = layout_of(tuple(row.cells))
    if bare or (not options and (same_options or series or lists)):
        replaced = {*lists, *(name for names in series for name in names)}
        cells = {name: value for name, value in cells.items() if name not in replaced}
        cells["options"] = list(bare or same_options)
    return row.with_cells(cells)


def split_options(text: str) -> tuple[str, list[str]]:
    """A question and the options that its last lines list, without letters; the text and none if it lists none.

    They are lettered A, B, ... in order, as "A. x" or "(A) x", and may go over several lines.
    """
    places = [match.end() for match in LINE.finditer(text)]
    # The last run of lines that begins with A: a question may list things of its own.
    for first in reversed([place for place in places if text[place:].lstrip("(").startswith("A")]):
        starts = [place for place in places if place >= first]
        parts = [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
        if (question := HEADING.sub("", text[:first].strip())) and (options := without_letters(parts)):
            return question, options
    return text, []


def without_letters(options: Sequence[str]) -> list[str]:
    """Options without their letters, if these are A, B, ... in order and there are several; else none."""
    matches = [match for option in options if (match := LETTERED.fullmatch(option))]
    in_order = len(options) > 1 and [match[1] for match in matches] == list(ascii_uppercase[: len(options)])
    return [match[2].strip() for match in matches] if in_order else []
