"""The terminal: tables, progress bars."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
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
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, transient=True, disable=not sys.stdout.isatty())
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
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate and time left; gives the function that moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), transient=True, disable=not sys.stdout.isatty()
    ) as bar:
        line = bar.add_task(title, total=total)
        yield lambda count: bar.advance(line, count)
