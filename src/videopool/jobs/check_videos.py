"""job=check_videos: whether the clips of a benchmark can be read, found out before a sweep needs them."""

import csv
import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from videopool.benchmarks import Benchmark, repeated_answers, require_clips
from videopool.benchmarks.clip_check import (
    BOUNDS,
    MISSING,
    OK,
    UNREADABLE,
    ClipReport,
    ClipTask,
    check_clip,
    clip_tasks,
    report,
)
from videopool.files import whole
from videopool.jobs.build import build, number
from videopool.jobs.errors import ConfigError, Stopped
from videopool.jobs.interrupts import ask_before_stopping, ignore_interrupts
from videopool.jobs.outcome import COMPLETE, FAILED, Outcome
from videopool.jobs.terminal import console
from videopool.results import ResultsError
from videopool.video import READERS

# Named, because inside a joblib worker the default is loky's, which cannot start processes.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
PATIENCE = 1.0  # seconds between two looks at whether there is still someone to work for
LISTED = 10


def check_videos(config: DictConfig) -> Outcome:
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
        print(f"videopool: {line}", file=sys.stderr)
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


class Journal:
    """Reports so far, on disk, so that a stopped check goes on.

    A report counts for as long as the file's size and time of change, and how it was read, stay the same.

    Args:
        path: of the file.
        how: clips are read.
    """

    def __init__(self, path: Path, how: dict[str, object]) -> None:
        self.path, self.how = path, how
        self._kept: dict[str, ClipReport] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
                self._kept[entry["key"]] = ClipReport(**entry["report"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut off

    def get(self, task: ClipTask) -> ClipReport | None:
        """An earlier report of the clip as it is now."""
        return self._kept.get(self._key(task))

    def add(self, task: ClipTask, found: ClipReport) -> None:
        """Keep a report."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": self._key(task), "report": asdict(found)}) + "\n")

    def remove(self) -> None:
        """The check is complete."""
        self.path.unlink(missing_ok=True)

    def _key(self, task: ClipTask) -> str:
        try:
            stat = os.stat(task.path)
            state: list[int] = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            state = []
        return json.dumps([asdict(task), self.how, state])


def _check_all(tasks: Sequence[ClipTask], journal: Journal, workers: int, title: str) -> list[ClipReport]:
    """Reports of all clips, in their order. Raises Stopped if the user asked to stop."""
    known = {task: earlier for task in tasks if (earlier := journal.get(task))}
    left = [task for task in tasks if task not in known]
    jobs = [(task, str(journal.how["reader"]), bool(journal.how["full"])) for task in left]
    with (
        ask_before_stopping() as stop,
        _bar(title, len(tasks), len(known)) as advance,
        # Closed at once, whatever happens: no process outlives the job.
        closing(in_processes(check_clip, jobs, workers, lambda: stop.asked)) as results,
    ):
        for place, found in results:
            task = left[place]
            known[task] = found or report(task, UNREADABLE, "reading it killed the process that did")
            journal.add(task, known[task])
            advance()
    if len(known) < len(tasks):
        raise Stopped(f"{len(known)} of {len(tasks)} clips are checked")
    return [known[task] for task in tasks]


@dataclass
class _Worker:
    """A process, the line to it, and the place of the job that it has; None if it has none."""

    process: BaseProcess
    line: Connection
    place: int | None = None


def in_processes(
    work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], count: int, stopped: Callable[[], bool]
) -> Generator[tuple[int, Any], None, None]:
    """Results of work(*job), as they come, each with its job's place; None where the process that had it died.

    Args:
        work: a function at the top of a module.
        jobs: its arguments.
        count: how many processes.
        stopped: asked before each job; once true, no further one is begun.

    Raises:
        RuntimeError: work raised an error.
    """
    left = iter(range(len(jobs)))
    workers: list[_Worker] = []
    try:
        while True:
            while not stopped() and len(busy := [w for w in workers if w.place is not None]) < count:
                if (place := next(left, None)) is None:
                    break
                worker = next((w for w in workers if w.place is None), None)
                if worker is None:
                    worker = _started(work)
                    workers.append(worker)
                worker.place = place
                worker.line.send(jobs[place])
            busy = [w for w in workers if w.place is not None]
            if not busy:
                return
            ready = wait([w.line for w in busy], timeout=PATIENCE)
            for worker in [w for w in busy if w.line in ready]:
                done, worker.place = worker.place, None
                try:
                    result, error = worker.line.recv()
                except (EOFError, ConnectionError):
                    workers.remove(worker)
                    worker.process.join()
                    result, error = None, ""
                if error:
                    raise RuntimeError(error)
                assert done is not None
                yield done, result
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.line.close()


def _started(work: Callable[..., Any]) -> _Worker:
    context: Any = multiprocessing.get_context(START_METHOD)
    line, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen here when the process dies
    return _Worker(process, line)


def _serve(work: Callable[..., Any], line: Connection, parent: int) -> None:
    """What a process does: one job after another, until there is nobody left to work for."""
    ignore_interrupts()
    while True:
        while not line.poll(PATIENCE):
            if os.getppid() != parent:
                return
        try:
            job = line.recv()
        except EOFError:
            return
        try:
            line.send((work(*job), ""))
        except Exception:  # any: the parent raises it, and a silent death would pass for a clip that kills its reader
            line.send((None, traceback.format_exc()))


def _write(path: Path, reports: Sequence[ClipReport]) -> None:
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(ClipReport)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rounded(asdict(one)) for one in reports)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


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
    for one in bad[:LISTED]:
        print(f"    {one.clip}: {one.status}: {one.reason}", file=sys.stderr)
    if len(bad) > LISTED:
        print(f"    and {len(bad) - LISTED} more", file=sys.stderr)


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A progress bar with rate and time left; gives the function that moves it on by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), transient=True, disable=not sys.stdout.isatty()
    ) as bar:
        line = bar.add_task(title, total=total, completed=done)
        yield lambda: bar.advance(line)
