"""Tables of cells, whatever their format: HTML, Markdown, LaTeX, the terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

LEAST_P = 0.0001  # the smallest p-value that is written


@dataclass(frozen=True)
class Cell:
    """One entry of a table: its text, 95 % interval and note (or ""), and whether it is the best of its column.

    order: sort key of a numeric column; None without a number.
    """

    text: str
    interval: str = ""
    order: float | None = None
    best: bool = False
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


Fields = Mapping[str, Any]  # a row of a data frame
Column = tuple[Heading, Callable[[Fields], Cell]]


def text_table(columns: Sequence[Column], rows: Iterable[Fields]) -> TextTable:
    """The columns' cells of some rows."""
    lines = (
        Row(tuple(c(row) for _, c in columns), str(row.get("point", "")), str(row.get("status", ""))) for row in rows
    )
    return TextTable(tuple(heading for heading, _ in columns), tuple(lines))


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


def share_cell(value: Any, low: Any = None, high: Any = None, signed: bool = False, best: bool = False) -> Cell:
    """A share in per cent, with its interval if it has one."""
    interval = "" if missing(low) or missing(high) else f"[{percent_text(low)}, {percent_text(high)}]"
    return Cell(percent_text(value, signed), interval, None if missing(value) else float(value), best)


def column(heading: str, cell: Callable[..., Cell], *names: str, **options: Any) -> Column:
    """A column whose cells are made from some fields of a row; one of plain cells is text."""
    return Heading(heading, cell is not plain_cell), lambda row: cell(*(row.get(name) for name in names), **options)


def difference_column(heading: str, name: str) -> Column:
    """A column of differences of shares with their intervals."""
    return column(heading, share_cell, name, f"{name}_low", f"{name}_high", signed=True)
