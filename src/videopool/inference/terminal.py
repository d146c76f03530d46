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
    """Words of a table that no console takes for markup; a title's style is "table.title"."""
    return Text(str(text), style=style)
