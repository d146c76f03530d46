"""CSV files that a spreadsheet opens as text and numbers, never as formulas."""

from pathlib import Path

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first letters of a formula
TEXT = "'"  # a spreadsheet's mark of text


def spreadsheet(table: pd.DataFrame) -> str:
    """A table as CSV; words that begin like a formula have a mark of text before them."""
    out = table.map(lambda value: TEXT + value if isinstance(value, str) and value.startswith(FORMULA) else value)
    return str(out.rename(columns=str).to_csv(index=False))


def read_spreadsheet(path: Path) -> pd.DataFrame:
    """The table that spreadsheet wrote."""
    marked = tuple(TEXT + first for first in FORMULA)
    table = pd.read_csv(path)
    return table.map(lambda value: value[1:] if isinstance(value, str) and value.startswith(marked) else value)
