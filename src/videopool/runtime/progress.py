"""How far the work is: bars in a terminal, plain lines elsewhere. One display per process shows all work.

In a terminal, one bar is for the points of a multirun and one for the work on a point. Elsewhere, and for points side
by side, work that takes longer than PATIENCE says so in a line, and again after each EVERY.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, TypeVar

from videopool.runtime import log, sweep

PATIENCE = 3.0  # seconds
EVERY = float(os.environ.get("VIDEOPOOL_PROGRESS_SECONDS", "60"))
FRAMES_PER_SECOND = 4
TELLING = 60.0  # seconds after which even the first point, which also imports and loads, tells how long others take

Item = TypeVar("Item")
Advance = Callable[..., None]  # (count, words to show)


class _Work:
    """One piece of work, and how much of it is done."""

    def __init__(self, title: str, total: int | None = None, done: int = 0) -> None:
        self.title, self.total, self.done, self.first = title, total, done, done
        self.started, self.now = time.monotonic(), ""
        self.said = False  # in a line

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> float | None:
        """Seconds, if what is done tells."""
        fresh = self.done - self.first
        return None if self.total is None or fresh <= 0 else self.seconds / fresh * (self.total - self.done)

    def counts(self) -> str:
        """How far it is, in words."""
        count = "" if self.total is None else f"{self.done} of {self.total}"
        left = self.left()
        time_left = f"{_clock(self.seconds)} so far" if left is None else f"{_clock(left)} left"
        return ", ".join(filter(None, (count, self.now, time_left)))


class _Sweep(_Work):
    """The points of a multirun."""

    def __init__(self, total: int) -> None:
        self.in_turn = sweep.in_turn()
        super().__init__("" if self.in_turn else "points side by side", total)
        self.costs: dict[int, float] | None = None  # by number, of points that were not finished before
        self.began = self.started  # the current point
        self.spent: dict[int, float] = {}  # seconds by number, of points that took any
        self.over: set[int] = set()

    def look(self) -> None:
        """Count the points that ended."""
        outcomes = sweep.ended()
        self.done, self.first = len(outcomes), sum(not outcome["fresh"] for outcome in outcomes)
        fresh = [(o["number"], o["seconds"]) for o in outcomes if o["fresh"] and o["status"] == "complete"]
        self.spent = dict(fresh[1:] or [own for own in fresh if own[1] > TELLING])
        self.over = {outcome["number"] for outcome in outcomes}

    def left(self) -> float | None:
        if not self.in_turn:
            return super().left()
        left = sweep.seconds_left(self.costs or {}, self.spent, self.over)
        return left and max(0.0, left - (time.monotonic() - self.began))

    def counts(self) -> str:
        left = self.left()
        eta = "" if left is None else f", about {_clock(left)} left"
        if self.in_turn:
            return f"point {min(self.done + 1, self.total or 0)} of {self.total}{eta}"
        return f"{self.done} of {self.total} points have ended{eta}"


def _clock(seconds: float) -> str:
    """A duration in words: 12 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Display:
    """Shows the work of this process; at most one of its thread, which looks at it every moment, is alive."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.sweep: _Sweep | None = None
        self.works: list[_Work] = []  # the innermost last
        self.base: _Work | None = None  # what is done between works
        self.lock = threading.RLock()
        self.said = time.monotonic()  # when the last line was printed
        self.bars: Any = None
        self.thread: threading.Thread | None = None

    def update(self) -> None:
        """Begin or end showing, as there is work or none."""
        busy = bool(self.sweep or self.works or self.base) and not self.silent and not log.quiet()
        if busy and self.thread is None:
            # Processes side by side print what bars would erase.
            if _in_terminal() and (self.sweep is None or self.sweep.in_turn):
                from videopool.runtime.terminal import bars

                self.bars = bars(2)
                self.bars.start()
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()
        elif not busy and self.thread is not None:
            self.thread = None
            if self.bars is not None:
                self.bars.stop()
                self.bars = None

    def _watch(self) -> None:
        while True:
            time.sleep(1 / FRAMES_PER_SECOND)
            with self.lock:
                if self.thread is not threading.current_thread():
                    return
                self.show()

    def show(self) -> None:
        """Draw the bars, or print a line where one is due."""
        base = self.base
        if self.sweep is not None and not self.sweep.in_turn:
            self.sweep.look()
            base = None
        shown = [work for work in (self.sweep, self.works[-1] if self.works else base) if work is not None]
        if self.bars is not None:
            for task, work in zip_longest(self.bars.tasks, shown):
                if work is None:
                    self.bars.update(task.id, visible=False)
                else:
                    amount = {"total": work.total, "completed": work.done}
                    self.bars.update(task.id, visible=True, description=work.title, words=work.counts(), **amount)
            self.bars.refresh()
        elif shown:
            now, work = time.monotonic(), shown[-1]
            if now - self.said >= EVERY or (not work.said and work.seconds > PATIENCE):
                self.said, work.said = now, True
                print("; ".join(f"{one.title}: {one.counts()}".removeprefix(": ") for one in shown), flush=True)


_display = _Display(silent=False)


def _in_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@contextmanager
def progress(title: str, total: int | None = None, done: int = 0) -> Iterator[Advance]:
    """Show a piece of work while it is done. Yields the function (count, words to show) that advances it."""
    work = _Work(title, total, done)

    def advance(count: int, now: str | None = None) -> None:
        work.done += count
        work.now = work.now if now is None else now

    with _display.lock:
        _display.works.append(work)
        _display.update()
    try:
        yield advance
    finally:
        with _display.lock:
            _display.works.remove(work)
            _display.update()
        log.detail(f"{title}: {work.seconds:.1f} s")


def watched(items: Sequence[Item], title: str) -> Iterator[Item]:
    """Items one by one, shown as they are done."""
    with progress(title, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


def doing(title: str | None) -> None:
    """Show what is done from now on, where no piece of work says more; None: nothing."""
    with _display.lock:
        if _display.base is not None and title is not None:
            log.detail(f"{_display.base.title}: {_display.base.seconds:.1f} s")
        _display.base = None if title is None else _Work(title)
        _display.update()


def begin_sweep(points: int) -> None:
    """Show the points of a multirun, from the next work on."""
    with _display.lock:
        _display.sweep = _Sweep(points) if points > 1 else None


def begin_point(label: str, costs: Callable[[Sequence[Any]], dict[int, float]]) -> None:
    """Note that a point begins; `costs` of configurations, by number, are asked for once."""
    shown = _display.sweep
    if shown is not None and shown.in_turn:
        if shown.costs is None:
            shown.costs = costs(sweep.composed)
        with _display.lock:
            shown.title, shown.began = label, time.monotonic()
            shown.look()


def finish() -> None:
    """Show no work any more: what follows are results."""
    with _display.lock:
        _display.sweep = None
        doing(None)


def be_silent() -> None:
    """Show no work in this process: another one does, or it is measured."""
    with _display.lock:
        _display.silent = True
        _display.update()


def _after_fork() -> None:
    """A fork prints to the streams themselves; its parent shows the work."""
    global _display
    _display = _Display(silent=True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        setattr(sys, name, getattr(stream, "rich_proxied_file", stream))


# While the lock is held, no other thread prints: the child finds the streams' own locks free.
os.register_at_fork(
    before=lambda: _display.lock.acquire(), after_in_parent=lambda: _display.lock.release(), after_in_child=_after_fork
)
atexit.register(finish)  # a terminal gets its cursor back
