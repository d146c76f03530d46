"""How tables reach the terminal."""

from rich.console import Console
from rich.text import Text

WIDE = 190  # columns, where there is no terminal to fit


def console() -> Console:
    """The terminal. Names are printed as they are, whatever brackets and colons they hold."""
    found = Console(markup=False, emoji=False)
    if not found.is_terminal:
        found.width = WIDE
    return found


def plain(text: object, style: str = "") -> Text:
    """Words of a table that are no markup on any console; style "table.title" or "table.caption" where they are that."""
    return Text(str(text), style=style)
