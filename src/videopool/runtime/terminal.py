"""The terminal: tables, bars."""

import os
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column
from rich.text import Text

BAR = 12  # characters
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


def bars(count: int) -> Progress:
    """So many bars for work, without a thread that draws them. What is printed meanwhile appears above them."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(BAR),
        TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True)),
    )
    made = Progress(
        *columns,
        console=console(),
        transient=True,
        auto_refresh=False,
        expand=True,
        redirect_stdout=sys.stdout.isatty(),  # not the lines of a file
        redirect_stderr=sys.stderr.isatty(),
    )
    for _ in range(count):
        made.add_task("", visible=False, words="")
    return made
