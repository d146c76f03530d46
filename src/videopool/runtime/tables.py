"""Tables, and how a terminal shows them: whole numbers, one line per row, as many columns as fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from videopool.runtime.terminal import console, plain

GAP = 2  # cells between two columns
LINES = 3  # of a heading
NAME, WORDS = 8, 20  # the least width of a column of names, and of one of sentences
OPTIONAL = 5  # from this rank on, a column never takes room from names

PREFIXES = {"B": {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0}, "FLOPs": {"T": 1e12, "G": 1e9}}  # of units
PREFIXES[""] = {"trillion": 1e12, "billion": 1e9, "million": 1e6, "thousand": 1e3, "": 1.0}


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    interval: str = ""  # 95 %
    order: float | None = None  # sort key of a numeric column; None without a number
    best: bool = False  # of its column
    mark: str = ""  # behind the text and its interval, never cut


@dataclass(frozen=True)
class Heading:
    """The heading of a column, its content and its worth."""

    text: str
    numeric: bool = True
    rank: int = 0  # columns of the highest rank go first where a terminal is narrow; those of rank 0 stay
    wraps: bool = False  # sentences, which may take several lines; other words are names, which are shortened
    note: str = ""  # below the table, if the column is shown


@dataclass(frozen=True)
class Row:
    """A line of a table; point and status are "" if it does not describe one point."""

    cells: tuple[Cell, ...]
    point: str = ""
    status: str = ""
    style: str = ""  # in a terminal
    rule: bool = False  # begins a group of rows
    title: str = ""  # of that group, in papers


@dataclass(frozen=True)
class TextTable:
    """A table of text; each row has one cell per heading."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]


def made_table(headings: Sequence[Heading], rows: Iterable[Sequence[str] | Row]) -> TextTable:
    """A table from rows of words, or finished rows."""
    made = [row if isinstance(row, Row) else Row(tuple(Cell(str(word)) for word in row)) for row in rows]
    return TextTable(tuple(headings), tuple(made))


def show_table(table: TextTable, title: str, caption: Sequence[str] = (), hint: str = "") -> None:
    """Print a table; see Shown."""
    console().print(Shown(table, title, tuple(caption), hint))


@dataclass(frozen=True)
class Shown:
    """A table as wide as the console at most. Columns without room are named below it, with a hint for the user."""

    table: TextTable
    title: str
    caption: tuple[str, ...] = ()
    hint: str = ""

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        headings, room = self.table.headings, options.max_width
        columns = [_Column(heading, [row.cells[place] for row in self.table.rows]) for place, heading in
                   enumerate(headings)]  # fmt: skip
        shown = _fitting(columns, room)
        out = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for place, width in shown.items():
            heading = plain(headings[place].text)
            heading.justify = "right" if headings[place].numeric else "left"
            out.add_column(heading, width=width, overflow="fold")
        lines = zip(*(columns[place].lines(width) for place, width in shown.items()), strict=True)
        for row, line in zip(self.table.rows, lines, strict=True):
            if row.rule and out.row_count:
                out.add_section()
            styles = ["bold" if row.cells[place].best else "" for place in shown]
            out.add_row(*map(plain, line, styles), style=row.style or None)
        yield plain(self.title, "table.title")
        yield out
        left_out = [heading.text for place, heading in enumerate(headings) if place not in shown]
        narrow = [f"no room for: {'; '.join(left_out)}{self.hint}"] if left_out else []
        notes = dict.fromkeys(headings[place].note for place in shown if headings[place].note)
        for part in filter(None, ["; ".join([*notes, *self.caption]), *narrow]):
            yield Text(part, style="dim", overflow="fold")


class _Column:
    """A column's heading and cells, with their widths in a terminal."""

    def __init__(self, heading: Heading, cells: Sequence[Cell]) -> None:
        self.heading = heading
        self.texts = [_one_line(cell.text) for cell in cells]
        self.tails = [f" {cell.interval}{cell.mark}" if cell.interval else cell.mark for cell in cells]
        self.text, self.tail = (max(map(cell_len, texts), default=0) for texts in (self.texts, self.tails))
        longest, whole = max(map(cell_len, heading.text.split())), cell_len(heading.text)
        head = next(width for width in range(longest, whole + 1) if len(wrap(heading.text, width)) <= LINES)
        self.width = max(head, self.text + self.tail)
        least = self.width if heading.numeric else max(longest, self.tail + (WORDS if heading.wraps else NAME))
        self.least = min(self.width, least)

    def lines(self, width: int) -> list[str]:
        """The cells in so many columns of the terminal."""
        if self.heading.wraps:
            return [text + tail for text, tail in zip(self.texts, self.tails, strict=True)]
        if self.heading.numeric:
            pad = width - self.tail
            return [" " * (pad - cell_len(t)) + t + tail for t, tail in zip(self.texts, self.tails, strict=True)]
        return [t + tail for t, tail in zip(shortened(self.texts, width - self.tail), self.tails, strict=True)]


def _one_line(text: str) -> str:
    """A text without line breaks, but with its indentation."""
    indent = len(text) - len(text.lstrip(" "))
    return " " * indent + " ".join(text.split())


def _fitting(columns: Sequence[_Column], room: int) -> dict[int, int]:
    """The columns that fit, by their places, and their widths; names are shortened for the first ranks alone."""
    chosen: dict[int, int] = {}
    for place in sorted(range(len(columns)), key=lambda place: columns[place].heading.rank):
        rank = columns[place].heading.rank
        tried = [columns[n].least if rank < OPTIONAL else columns[n].width for n in (*chosen, place)]
        if not rank or sum(tried) + GAP * len(chosen) <= room:
            chosen[place] = columns[place].width
    over = sum(chosen.values()) + GAP * (len(chosen) - 1) - room
    while over > 0 and (wide := [place for place in chosen if chosen[place] > columns[place].least]):
        chosen[max(wide, key=chosen.__getitem__)] -= 1
        over -= 1
    for place, width in chosen.items():  # room that is left makes headings shorter
        more = cell_len(columns[place].heading.text) - width
        if 0 < more <= -over:
            chosen[place] += more
            over += more
    return dict(sorted(chosen.items()))


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Names in at most so many cells: long ones lose their middle, and get a number where they would look alike."""
    short = {name: name for name in names}
    taken = {name for name in names if cell_len(name) <= width}
    for number, name in enumerate([name for name in short if name not in taken], 1):
        head = 2 * width // 3
        tail = set_cell_size(name[::-1], width - 1 - head)[::-1]
        short[name] = f"{set_cell_size(name, head)}…{tail}"
        if short[name] in taken:
            tag = f"…{number}"
            short[name] = set_cell_size(name, max(0, width - cell_len(tag))).rstrip() + tag
        taken.add(short[name])
    return [short[name] for name in names]


def unit_of(largest: float, unit: str) -> tuple[float, str]:
    """The unit for numbers up to the largest: how many of the plain one it is, and its name, as 1e9 and "GB"."""
    prefixes = PREFIXES[unit]
    prefix = next((name for name, size in prefixes.items() if abs(largest) >= 0.9995 * size), list(prefixes)[-1])
    return prefixes[prefix], prefix + unit


def size_text(count: float, unit: str = "B") -> str:
    """A number of bytes, or FLOPs, with the unit that suits it."""
    size, unit = unit_of(count, unit)
    return f"{number_text(count / size)} {unit}"


def number_text(value: float) -> str:
    """Three significant digits, without an exponent above 1."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def count_text(count: float) -> str:
    """A large number in words: 366 thousand, 7.06 billion."""
    size, word = unit_of(count, "")
    return f"{number_text(count / size)} {word}".rstrip()
