"""Tables in Markdown (GitHub's) and in LaTeX, with booktabs. The best of a column is bold, intervals are subscripts."""

import re

from videopool.reports.cells import Cell, TextTable

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")
NAMED = {
    "\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar", '"': "quotedbl",
}  # fmt: skip
LATEX = str.maketrans(
    {letter: rf"\text{name}{{}}" for letter, name in NAMED.items()} | {letter: f"\\{letter}" for letter in "{}$&#%_"}
)


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
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:.-]+', '-', label)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            heading,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_cell(cell: Cell) -> str:
    if cell.order is None:
        return escape_latex(cell.text)
    # A formula, since a hyphen in text is no minus.
    number = rf"\mathbf{{{cell.text}}}" if cell.best else cell.text
    return f"${number}_{{{cell.interval}}}$" if cell.interval else f"${number}$"
