"""Cells of tables, and tables as Markdown (GitHub's; the best is bold, intervals are subscripts) and as CSV."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.results.study import rows_of
from videopool.runtime.tables import Cell, Heading, Row, TextTable

LEVEL = 0.05  # of a p-value: below it, a difference has a star
LEAST_P = 0.0001  # the smallest p-value that is written
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first letters of a formula
TEXT = "'"  # a spreadsheet's mark of text
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")
Fields = Mapping[Any, Any]  # a row of a data frame
Column = tuple[Heading, Callable[[Fields], Cell]]


def text_table(columns: Sequence[Column], frame: pd.DataFrame) -> TextTable:
    """The columns' cells of a data frame's rows."""
    rows = [
        Row(tuple(cell(row) for _, cell in columns), str(row.get("point", "")), str(row.get("status", "")))
        for row in rows_of(frame)
    ]
    return TextTable(tuple(heading for heading, _ in columns), tuple(rows))


def missing(value: object) -> bool:
    """Whether a value of a data frame, or of a JSON file, is missing."""
    return bool(pd.isna(value))


def percent_text(value: Any, signed: bool = False) -> str:
    """A share 0..1 in per cent, "-" if it is missing."""
    return "-" if missing(value) else f"{100 * float(value):{'+' if signed else ''}.1f}"


def plain_cell(value: Any) -> Cell:
    """A word, or a number as it is."""
    if missing(value) or isinstance(value, str):
        return Cell("-" if missing(value) else value)
    return Cell(f"{value:g}", order=float(value))


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


def difference_cell(value: Any, low: Any = None, high: Any = None, p: Any = None) -> Cell:
    """A difference of shares with its interval, and a star if its p-value is below LEVEL."""
    star = not missing(p) and float(p) < LEVEL
    return replace(share_cell(value, low, high, signed=True), mark="*" if star else "")


def column(heading: str | Heading, cell: Callable[..., Cell], *names: str, **options: Any) -> Column:
    """A column whose cells are made from some fields of a row; one of plain cells is text."""
    heading = heading if isinstance(heading, Heading) else Heading(heading, cell is not plain_cell)
    return heading, lambda row: cell(*(row.get(name) for name in names), **options)


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
    interval = f"<sub>{escape_markdown(cell.interval)}</sub>" if cell.interval else ""
    return text + interval + escape_markdown(cell.mark)


def spreadsheet(table: pd.DataFrame) -> str:
    """A table as CSV; words that begin like a formula have a mark of text before them."""
    out = table.map(lambda value: TEXT + value if isinstance(value, str) and value.startswith(FORMULA) else value)
    return str(out.rename(columns=str).to_csv(index=False))


def read_spreadsheet(path: Path) -> pd.DataFrame:
    """The table that spreadsheet wrote."""
    marked = tuple(TEXT + first for first in FORMULA)
    table = pd.read_csv(path)
    return table.map(lambda value: value[1:] if isinstance(value, str) and value.startswith(marked) else value)
