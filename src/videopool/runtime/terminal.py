"""The terminal: tables, progress bars."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

PATIENCE = 2.0  # seconds before a progress bar appears
WIDE = 160  # columns where the output is no terminal, unless COLUMNS is set


def console() -> Console:
    """The terminal. It prints names as they are, with their brackets and colons."""
    screen = Console(markup=False, emoji=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = WIDE
    return screen


def plain(text: object, style: str = "") -> Text:
    """A cell, title (style "table.title") or caption that no console parses as markup."""
    return Text(str(text), style=style)


def watched(items: list[Any], title: str) -> Iterator[Any]:
    """Items one by one; a progress bar appears in a terminal after PATIENCE seconds."""
    bar = _bar()
    line, started = bar.add_task(title, total=len(items)), time.perf_counter()
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
    """A progress bar. Yields the function (count, words to show) that advances it."""
    with _bar() as bar:
        line = bar.add_task(title, total=total, completed=done)
        yield lambda count, now=None: bar.update(line, advance=count, description=now and f"{title}  {now}")


@contextmanager
def progress_lines() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """A progress bar of several lines. Yields the function (title, total) that adds a line and returns its step."""
    with _bar(auto_refresh=False) as bar:  # a thread that redraws would take time from the measurement

        def begin(title: str, total: int) -> Callable[[], None]:
            line = bar.add_task(title, total=total)
            bar.refresh()
            return lambda: bar.update(line, advance=1, refresh=True)

        yield begin


def _bar(auto_refresh: bool = True) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    hidden = not sys.stdout.isatty()
    return Progress(*columns, TimeRemainingColumn(), transient=True, disable=hidden, auto_refresh=auto_refresh)
