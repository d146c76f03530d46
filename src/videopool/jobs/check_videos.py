"""job=check_videos: whether the clips of a benchmark can be read, found out before a sweep needs them."""

import csv
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from videopool.benchmarks import Benchmark, repeated_answers, require_clips
from videopool.benchmarks.clip_check import (
    BOUNDS,
    MISSING,
    OK,
    UNREADABLE,
    ClipReport,
    ClipTask,
    Journal,
    check_clip,
    clip_tasks,
    report,
)
from videopool.config.build import build, number
from videopool.config.errors import ConfigError, Stopped
from videopool.files import whole
from videopool.notes import note, note_list
from videopool.results import ResultsError
from videopool.runtime.interrupts import ask_before_stopping
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome
from videopool.runtime.terminal import console, progress_bar
from videopool.runtime.workers import in_processes
from videopool.video import READERS


def run(config: DictConfig) -> Outcome:
    """Read the clips of a benchmark, write check_videos.csv, and print what is wrong.

    Raises:
        ConfigError: settings that make no sense.
        BenchmarkError: the benchmark cannot be read, or none of its clips is there.
        ResultsError: the file cannot be written.
        Stopped: the user asked to stop; what was checked is kept for the next time.
    """
    if config.job.reader not in READERS:
        raise ConfigError(f"job.reader={config.job.reader!r}: choose one of {', '.join(READERS)}")
    if not isinstance(config.job.full, bool):
        raise ConfigError(f"job.full={config.job.full!r}: say true or false")
    workers = number(config, "job.workers", 1, whole=True)
    benchmark: Benchmark = build(config, "benchmark")
    for line in filter(None, (require_clips(benchmark), repeated_answers(benchmark))):
        note(line)
    path = Path(config.results_dir) / config.study / "check_videos.csv"
    tasks = clip_tasks(benchmark)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        how = {"reader": config.job.reader, "full": config.job.full}
        journal = Journal(path.with_suffix(".part"), how)
        reports = _check_all(tasks, journal, workers, benchmark.id)
        _write(path, reports)
        journal.remove()
    except OSError as error:
        raise ResultsError(f"{path} cannot be written: {error.strerror or error}") from error
    show(reports, f"{benchmark.id}: {len(reports)} clips")
    bad = sum(one.status != OK for one in reports)
    told = f"{len(reports) - bad} of {len(reports)} clips can be read; wrote {path}"
    return Outcome(FAILED if bad else COMPLETE, f"check_videos {benchmark.id}", told, str(path.parent))


def _check_all(tasks: Sequence[ClipTask], journal: Journal, workers: int, title: str) -> list[ClipReport]:
    """Reports of all clips, in their order. Raises Stopped if the user asked to stop."""
    known = {task: earlier for task in tasks if (earlier := journal.get(task))}
    left = [task for task in tasks if task not in known]
    jobs = [(task, str(journal.how["reader"]), bool(journal.how["full"])) for task in left]
    with (
        ask_before_stopping() as stop,
        progress_bar(title, len(tasks)) as advance,
        # Closed at once, whatever happens: no process outlives the job.
        closing(in_processes(check_clip, jobs, workers, lambda: stop.asked)) as results,
    ):
        advance(len(known))
        for place, found in results:
            task = left[place]
            known[task] = found or report(task, UNREADABLE, "reading it killed the process that did")
            journal.add(task, known[task])
            advance(1)
    if len(known) < len(tasks):
        raise Stopped(f"{len(known)} of {len(tasks)} clips are checked")
    return [known[task] for task in tasks]


def _write(path: Path, reports: Sequence[ClipReport]) -> None:
    rows = (asdict(one).items() for one in reports)
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(ClipReport)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: round(v, 3) if isinstance(v, float) else v for key, v in row} for row in rows)


def show(reports: Sequence[ClipReport], title: str) -> None:
    """Print how many clips there are of each status, and the first that are not ok."""
    screen = console()
    table = Table(title=title)
    for name in ("status", "clips", "share", "samples", "frames", "hours"):
        table.add_column(name, justify="left" if name == "status" else "right")
    for status in (OK, MISSING, UNREADABLE, BOUNDS):
        if own := [one for one in reports if one.status == status]:
            frames, seconds = sum(one.frames or 0 for one in own), sum(one.duration or 0.0 for one in own)
            samples, share = sum(one.samples for one in own), f"{100 * len(own) / len(reports):.1f} %"
            cells = (status, str(len(own)), share, str(samples), str(frames), f"{seconds / 3600:.2f}")
            table.add_row(*cells, style=None if status == OK else "red")
    screen.print(table)
    bad = [one for one in reports if one.status != OK]
    note_list([f"{one.clip}: {one.status}: {one.reason}" for one in bad])
