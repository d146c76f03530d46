"""A table in LaTeX, with booktabs."""

import re

from videopool.reports.cells import Cell, TextTable

REPLACED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
SPECIAL = re.compile("[" + re.escape("".join(REPLACED)) + "]")


def escape(text: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    return SPECIAL.sub(lambda found: REPLACED[found.group()], " ".join(text.split()))


def latex_table(table: TextTable, caption: str, label: str) -> str:
    """A table environment; the best of a column is bold, intervals are subscripts.

    Args:
        table: what to set.
        caption: plain text.
        label: under which the document refers to it; letters that a label cannot hold are replaced.
    """
    columns = "".join("r" if heading.numeric else "l" for heading in table.headings)
    lines = [
        "% Needs \\usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:.-]+', '-', label)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line([escape(heading.text) for heading in table.headings]),
        r"\midrule",
        *(_line([_cell(cell) for cell in row.cells]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    if cell.order is None:
        return escape(cell.text)
    # A formula, since a hyphen in text is no minus.
    number = rf"\mathbf{{{cell.text}}}" if cell.best else cell.text
    return f"${number}_{{{cell.interval}}}$" if cell.interval else f"${number}$"
