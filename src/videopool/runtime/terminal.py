"""The terminal: tables, progress bars."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

PATIENCE = 2.0  # seconds before a progress bar appears
WIDE = 190  # columns, where there is no terminal to fit


def console() -> Console:
    """The terminal. Names are printed as they are, whatever brackets and colons they hold."""
    found = Console(markup=False, emoji=False)
    if not found.is_terminal:
        found.width = WIDE
    return found


def plain(text: object, style: str = "") -> Text:
    """Words of a table that no console takes for markup; a title's style is "table.title"."""
    return Text(str(text), style=style)


def watched(items: list[Any], what: str) -> Iterator[Any]:
    """Items one by one, with a progress bar in a terminal once that takes longer than a moment."""
    bar = _bar()
    line = bar.add_task(what, total=len(items))
    started = time.perf_counter()
    try:
        for item in items:
            yield item
            bar.advance(line)
            if not bar.live.is_started and time.perf_counter() - started > PATIENCE:
                bar.start()
    finally:
        bar.stop()


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """A progress bar; gives the function (count, words to show) that moves it on."""
    with _bar() as bar:
        line = bar.add_task(title, total=total, completed=done)
        yield lambda count, now=None: bar.update(line, advance=count, description=now and f"{title}  {now}")


@contextmanager
def progress_lines() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """A progress bar of several lines; gives the function (title, total) that begins one and gives what moves it on.

    It draws at each step and not in a thread of its own, which would take time from what is measured.
    """
    with _bar(auto_refresh=False) as bar:

        def begin(title: str, total: int) -> Callable[[], None]:
            line = bar.add_task(title, total=total)
            bar.refresh()
            return lambda: bar.update(line, advance=1, refresh=True)

        yield begin


def _bar(auto_refresh: bool = True) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    off = not sys.stdout.isatty()
    return Progress(*columns, *times, transient=True, disable=off, auto_refresh=auto_refresh)
