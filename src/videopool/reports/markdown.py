"""A table in Markdown (GitHub's)."""

import re

from videopool.reports.cells import Cell, TextTable

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def markdown_table(table: TextTable) -> str:
    """Rows of a table; the best of a column is bold, intervals are subscripts."""
    lines = [[escape(heading.text) for heading in table.headings]]
    lines.append(["---:" if heading.numeric else ":---" for heading in table.headings])
    lines += [[_cell(cell) for cell in row.cells] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.best:
        text = f"**{text}**"
    return text + (f"<sub>{escape(cell.interval)}</sub>" if cell.interval else "")
