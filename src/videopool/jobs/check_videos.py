"""job=check_videos: can the clips of a benchmark be read? Found out before a sweep needs them."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from videopool.benchmarks import Benchmark, clip_check, repeated_answers, require_clips
from videopool.benchmarks.clip_check import ClipReport, ClipTask, Journal, check_clip, clip_tasks, report
from videopool.config.build import Number, build, check
from videopool.config.errors import Stopped
from videopool.files import whole
from videopool.notes import note, note_list
from videopool.results.errors import writing
from videopool.runtime.interrupts import ask_before_stopping
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome
from videopool.runtime.progress import progress
from videopool.runtime.tables import Cell, Heading, Row, TextTable, made_table, show_table
from videopool.runtime.workers import in_processes
from videopool.video import READERS


def run(config: DictConfig) -> Outcome:
    """Read the clips of a benchmark, write check_videos.csv, print the bad ones."""
    job = config.job
    check(config, {READERS: ["job.reader"], bool: ["job.full"], Number(1, whole=True): ["job.workers"]})
    benchmark: Benchmark = build(config, "benchmark")
    note(require_clips(benchmark))
    note(repeated_answers(benchmark))
    path = Path(config.results_dir) / config.study / "check_videos.csv"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = Journal(path.with_suffix(".part"), {"reader": job.reader, "full": job.full})
        reports = _check_all(clip_tasks(benchmark), journal, job.workers, benchmark.id)
        columns = [field.name for field in fields(ClipReport)]
        table = pd.DataFrame(map(asdict, reports), columns=columns).astype({"frames": "Int64"})
        with whole(path) as part:
            table.round(3).to_csv(part, index=False, lineterminator="\n")
        journal.remove()
    show_table(status_table(table), f"{benchmark.id}: {len(table)} clips")
    bad = table[table.status != clip_check.OK]
    note_list([f"{clip.clip}: {clip.status}: {clip.reason}" for clip in bad.itertuples()])
    message = f"{len(table) - len(bad)} of {len(table)} clips can be read; wrote {path}"
    status = COMPLETE if bad.empty else FAILED
    return Outcome(status, f"check_videos {benchmark.id}", message, str(path.parent))


def _check_all(tasks: Sequence[ClipTask], journal: Journal, workers: int, title: str) -> list[ClipReport]:
    """Reports of all clips, in their order. Raises Stopped if the user asked to stop."""
    known = {task: earlier for task in tasks if (earlier := journal.get(task))}
    left = [task for task in tasks if task not in known]
    work = [(task, str(journal.how["reader"]), bool(journal.how["full"])) for task in left]
    with (
        ask_before_stopping() as stop,
        progress(title, len(tasks), len(known)) as advance,
        # Closed at once after any error: no process outlives the job.
        closing(in_processes(check_clip, work, workers, lambda: stop.asked)) as results,
    ):
        for place, result in results:
            task = left[place]
            known[task] = result or report(task, clip_check.UNREADABLE, "reading it killed the process that did")
            journal.add(task, known[task])
            advance(1)
    if len(known) < len(tasks):
        raise Stopped(f"{len(known)} of {len(tasks)} clips are checked")
    return [known[task] for task in tasks]


def status_table(reports: pd.DataFrame) -> TextTable:
    """The number of clips by status, with their samples, frames and hours."""
    headings = [Heading("status", False), *map(Heading, ("clips", "share", "samples", "frames", "hours"))]
    rows = []
    for status in (clip_check.OK, clip_check.MISSING, clip_check.UNREADABLE, clip_check.BOUNDS):
        clips = reports[reports.status == status]
        if len(clips):
            share, hours = f"{100 * len(clips) / len(reports):.1f} %", f"{clips.duration.sum() / 3600:.2f}"
            words = (status, len(clips), share, clips.samples.sum(), clips.frames.sum(), hours)
            rows.append(Row(tuple(Cell(str(word)) for word in words), style="" if status == clip_check.OK else "red"))
    return made_table(headings, rows)
