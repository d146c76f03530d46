"""Tables of cells in any format; in Markdown (GitHub's) and LaTeX (booktabs) the best is bold, intervals subscripts."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

LEAST_P = 0.0001  # the smallest p-value that is written
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first letters of a formula
TEXT = "'"  # a spreadsheet's mark of text
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")
NAMED = {
    "\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar", '"': "quotedbl",
}  # fmt: skip
LATEX = str.maketrans(
    {letter: rf"\text{name}{{}}" for letter, name in NAMED.items()} | {letter: f"\\{letter}" for letter in "{}$&#%_"}
)


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    interval: str = ""  # 95 %
    order: float | None = None  # sort key of a numeric column; None without a number
    best: bool = False  # of its column
    note: str = ""


@dataclass(frozen=True)
class Heading:
    """The heading of a column, and whether the column holds numbers."""

    text: str
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """A line of a table; point and status are "" if it does not describe one point."""

    cells: tuple[Cell, ...]
    point: str = ""
    status: str = ""


@dataclass(frozen=True)
class TextTable:
    """A table of text; each row has one cell per heading."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]


Fields = Mapping[Any, Any]  # a row of a data frame
Column = tuple[Heading, Callable[[Fields], Cell]]


def text_table(columns: Sequence[Column], frame: pd.DataFrame) -> TextTable:
    """The columns' cells of a data frame's rows."""
    rows = [
        Row(tuple(cell(row) for _, cell in columns), str(row.get("point", "")), str(row.get("status", "")))
        for row in frame.to_dict("records")
    ]
    return TextTable(tuple(heading for heading, _ in columns), tuple(rows))


def missing(value: object) -> bool:
    """Whether a value of a data frame, or of a JSON file, is missing."""
    return bool(pd.isna(value))


def percent_text(value: Any, signed: bool = False) -> str:
    """A share 0..1 in per cent, "-" if it is missing."""
    return "-" if missing(value) else f"{100 * float(value):{'+' if signed else ''}.1f}"


def plain_cell(value: Any) -> Cell:
    """A value other than a number."""
    return Cell("" if missing(value) else str(value))


def number_cell(value: Any, digits: int = 0, scale: float = 1.0) -> Cell:
    """A number with so many decimals."""
    return Cell("-") if missing(value) else Cell(f"{scale * float(value):.{digits}f}", order=scale * float(value))


def p_cell(value: Any) -> Cell:
    """A p-value with four decimals, or its bound if it is smaller."""
    if missing(value):
        return Cell("-")
    return Cell(f"{value:.4f}" if value >= LEAST_P else f"<{LEAST_P}", order=float(value))


def share_cell(value: Any, low: Any = None, high: Any = None, best: bool = False, signed: bool = False) -> Cell:
    """A share in per cent, with its interval if it has one."""
    interval = "" if missing(low) or missing(high) else f"[{percent_text(low)}, {percent_text(high)}]"
    return Cell(percent_text(value, signed), interval, None if missing(value) else float(value), best)


def column(heading: str, cell: Callable[..., Cell], *names: str, **options: Any) -> Column:
    """A column whose cells are made from some fields of a row; one of plain cells is text."""
    return Heading(heading, cell is not plain_cell), lambda row: cell(*(row.get(name) for name in names), **options)


def difference_column(heading: str, name: str) -> Column:
    """A column of differences of shares with their intervals."""
    return column(heading, share_cell, name, f"{name}_low", f"{name}_high", signed=True)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def markdown_table(table: TextTable) -> str:
    """The rows of a table, one line each."""
    lines = [[escape_markdown(heading.text) for heading in table.headings]]
    lines.append(["---:" if heading.numeric else ":---" for heading in table.headings])
    lines += [[_markdown_cell(cell) for cell in row.cells] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    return text + (f"<sub>{escape_markdown(cell.interval)}</sub>" if cell.interval else "")


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    return " ".join(text.split()).translate(LATEX)


def latex_table(table: TextTable, caption: str, label: str) -> str:
    """A table environment. Letters that a label cannot hold are replaced."""
    columns = "".join("r" if heading.numeric else "l" for heading in table.headings)
    cells = [[escape_latex(heading.text) for heading in table.headings]]
    cells += [[_latex_cell(cell) for cell in row.cells] for row in table.rows]
    heading, *lines = (" & ".join(line) + r" \\" for line in cells)
    text = [
        "% Needs \\usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:.-]+', '-', label)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        *(r"\toprule", heading, r"\midrule", *lines, r"\bottomrule"),
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "".join(f"{line}\n" for line in text)


def _latex_cell(cell: Cell) -> str:
    if cell.order is None:
        return escape_latex(cell.text)
    # A formula, since a hyphen in text is no minus.
    number = rf"\mathbf{{{cell.text}}}" if cell.best else cell.text
    return f"${number}_{{{cell.interval}}}$" if cell.interval else f"${number}$"


def spreadsheet(table: pd.DataFrame) -> str:
    """A table as CSV; words that begin like a formula have a mark of text before them."""
    out = table.map(lambda value: TEXT + value if isinstance(value, str) and value.startswith(FORMULA) else value)
    return str(out.rename(columns=str).to_csv(index=False))


def read_spreadsheet(path: Path) -> pd.DataFrame:
    """The table that spreadsheet wrote."""
    marked = tuple(TEXT + first for first in FORMULA)
    table = pd.read_csv(path)
    return table.map(lambda value: value[1:] if isinstance(value, str) and value.startswith(marked) else value)
