"""How values of a study's table are written, whatever the format of the table."""

from dataclasses import dataclass

import pandas as pd

LEAST_P = 0.0001  # that is written


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes:
        text: what it says.
        interval: its 95 % interval, "" if it has none.
        order: what a numeric column is sorted by; None where there is no number.
        best: the best of its column.
        note: a remark on it, "" if there is none.
    """

    text: str
    interval: str = ""
    order: float | None = None
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Heading:
    """A column: what stands above it, and whether it holds numbers."""

    text: str
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """A line of a table; point and status are "" where it is not about one point."""

    cells: tuple[Cell, ...]
    point: str = ""
    status: str = ""


@dataclass(frozen=True)
class TextTable:
    """A table whose every entry is text; each row has one cell a heading."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]


def missing(value: object) -> bool:
    """Whether a value of a data frame, or of a JSON file, is none."""
    return value is None or bool(pd.isna(value))


def as_number(value: object) -> float | None:
    """A number as such; None for a missing value."""
    return None if missing(value) else float(str(value))


def number_text(value: object, digits: int) -> str:
    """A number with so many decimals, "-" if it is missing."""
    number = as_number(value)
    return "-" if number is None else f"{number:.{digits}f}"


def percent_text(value: object, signed: bool = False) -> str:
    """A share 0..1 in per cent, "-" if it is missing."""
    number = as_number(value)
    return "-" if number is None else f"{100 * number:{'+' if signed else ''}.1f}"


def interval_text(low: object, high: object) -> str:
    """Bounds in per cent, "" if they are missing."""
    return "" if missing(low) or missing(high) else f"[{percent_text(low)}, {percent_text(high)}]"


def plain_cell(value: object) -> Cell:
    """A value that is not a number."""
    return Cell("" if missing(value) else str(value))


def number_cell(value: object, digits: int, scale: float = 1.0) -> Cell:
    """A number, written with so many decimals."""
    number = as_number(value)
    return Cell("-") if number is None else Cell(number_text(scale * number, digits), order=scale * number)


def p_cell(value: object) -> Cell:
    """A p-value with four decimals, or that it is below what these can say."""
    number = as_number(value)
    return Cell("-") if number is None else Cell(f"{number:.4f}" if number >= LEAST_P else f"<{LEAST_P}", order=number)


def share_cell(
    value: object, low: object = None, high: object = None, signed: bool = False, best: bool = False
) -> Cell:
    """A share in per cent, with its interval where it has one."""
    return Cell(percent_text(value, signed), interval_text(low, high), as_number(value), best)
