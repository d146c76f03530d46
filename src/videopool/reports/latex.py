"""Tables for papers: LaTeX with booktabs alone, as wide as a column of text, or as the page if that is too narrow."""

import re
import unicodedata

from videopool.runtime.tables import Cell, Heading, TextTable

NAMED = {
    "\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar",
}  # fmt: skip
ESCAPED = {letter: rf"\text{name}{{}}" for letter, name in NAMED.items()}
ESCAPED |= {letter: f"\\{letter}" for letter in "{}$&#%_"} | {'"': "''"}
ESCAPED |= {
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{LESS-THAN OR EQUAL TO}": r"$\leq$", "\N{MINUS SIGN}": "$-$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$", "\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{RIGHTWARDS ARROW}": r"$\to$",
    "\N{EN DASH}": "--", "\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
}  # fmt: skip
GREEK = re.compile("GREEK SMALL LETTER (?!OMICRON|FINAL)([A-Z]+)")  # by their Unicode names
ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030b\u030c\u0327"  # of LaTeX's oldest font encoding
BREAK = r"\allowbreak{}"
# Widths in em of the table's font, a little too large rather than too small.
SINGLE, DOUBLE, GAP = 26.5, 55.0, 0.56  # a column of text, a page of two, between columns
LETTER, BOLD, SCRIPT = 0.53, 1.16, 0.36  # of a text, of the best cell, of an interval
LEAST = 6.5  # of a column of words
LINES = 40.0  # in one table; the others follow in another


def escape_latex(text: str, breaks: bool = False) -> str:
    """Text that LaTeX sets as it is, on one line, or broken anywhere in long words.

    Letters that not every LaTeX has become their number, as in [U+4E2D].
    """
    words = []
    for word in unicodedata.normalize("NFC", text).split():
        letters = [_letter(letter) for letter in word]
        if breaks:
            long = len(word) > 12
            letters = [
                latex + BREAK * (letter in "_/" or latex[:3] == "[U+" or (long and place % 6 == 5))
                for place, (letter, latex) in enumerate(zip(word, letters, strict=True))
            ]
        words.append("".join(letters))
    return " ".join(words)


def _letter(letter: str) -> str:
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if letter in ESCAPED:
        return ESCAPED[letter]
    if base.isascii() and base.isprintable() and (not accents or (len(accents) == 1 and accents[0] in ACCENTS)):
        return letter
    if greek := GREEK.fullmatch(unicodedata.name(letter, "")):
        return rf"$\{greek[1].lower().replace('lamda', 'lambda')}$"
    return "" if unicodedata.category(letter)[0] == "C" else f"[U+{ord(letter):04X}]"


def environments(table: TextTable, caption: str, label: str) -> str:
    """A table environment, or several for many rows. Letters that a label cannot hold are replaced.

    The best cells are bold, intervals subscripts, marks superscripts; titles of rows stand above their groups.
    """
    name = re.sub(r"[^A-Za-z0-9:.-]+", "-", label)
    columns = [[row.cells[place] for row in table.rows] for place in range(len(table.headings))]
    wanted = [_width(heading, cells) for heading, cells in zip(table.headings, columns, strict=True)]
    long = [place for place, h in enumerate(table.headings) if not h.numeric and wanted[place] > LEAST]
    fixed = sum(width + GAP for place, width in enumerate(wanted) if place not in long)
    kind, room = ("table", SINGLE) if fixed + (LEAST + GAP) * len(long) <= SINGLE + GAP else ("table*", DOUBLE)
    share = max(LEAST, (room + GAP - fixed) / max(1, len(long)) - GAP)
    widths = [min(width, share) if place in long else width for place, width in enumerate(wanted)]
    broken = [width < before for width, before in zip(widths, wanted, strict=True)]
    spec = "".join(
        f"p{{{width:.1f}em}}" if wrap else "r" if heading.numeric and not any(cell.interval for cell in cells) else "l"
        for heading, cells, width, wrap in zip(table.headings, columns, widths, broken, strict=True)
    )
    head = " & ".join(map(_heading, table.headings, widths))
    digits = [max((len(cell.text) for cell in cells if cell.interval), default=0) for cells in columns]
    group = rf"\multicolumn{{{len(columns)}}}{{@{{}}p{{{sum(widths) + GAP * (len(widths) - 1):.1f}em}}@{{}}}}"
    pages, title, left = [list[str]()], "", LINES
    for row in table.rows:
        words = [LETTER * len(escape_latex(cell.text)) // width for cell, width in zip(row.cells, widths, strict=True)]
        left -= 1 + max(words) + 1.5 * (row.title != title)
        if left < 0 and pages[-1]:
            pages.append([])
            title, left = "", LINES - 1 - max(words)
        if row.title != title:
            title = row.title
            pages[-1] += [r"\addlinespace"] * bool(pages[-1])
            pages[-1].append(rf"{group}{{\raggedright\emph{{{escape_latex(title, True)}}}}} \\")
        pages[-1].append(" & ".join(map(_cell, row.cells, digits, broken)) + r" \tabularnewline")
    made: list[str] = []
    for lines in pages:
        about = rf"Table~\ref{{tab:{name}}}, continued." if made else escape_latex(caption, True)
        text = [
            r"% Needs \usepackage{booktabs}.",
            rf"\begin{{{kind}}}",
            r"\centering",
            rf"\caption{{{about}}}",
            rf"\label{{tab:{name}{f'-{len(made) + 1}' if made else ''}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{0.28em}",
            rf"\begin{{tabular}}{{@{{}}{spec}@{{}}}}",
            *(r"\toprule", rf"{head} \\", r"\midrule", *lines, r"\bottomrule"),
            r"\end{tabular}",
            rf"\end{{{kind}}}",
        ]
        made.append("".join(f"{line}\n" for line in text))
    return "\n".join(made)


def _width(heading: Heading, cells: list[Cell]) -> float:
    """The estimated width of a column, whose heading may be broken between words."""
    widths = [0.6 + LETTER * max(map(len, heading.text.split()))]
    for cell in cells:
        text = len(cell.text if heading.numeric else escape_latex(cell.text))
        widths.append(LETTER * (BOLD if cell.best else 1) * text + SCRIPT * len(cell.interval + cell.mark))
    return max(widths)


def _heading(heading: Heading, width: float) -> str:
    """A heading, its first letter a capital, in lines as wide as its column."""
    text = heading.text
    if text[1:2].isalpha():
        text = text[0].upper() + text[1:]
    if LETTER * len(text) <= width:
        return escape_latex(text)
    side = r"\raggedleft" if heading.numeric else r"\raggedright"
    return rf"\parbox[b]{{{width:.1f}em}}{{{side} {escape_latex(text)}}}"


def _cell(cell: Cell, digits: int, broken: bool) -> str:
    mark = f"{{}}^{{{cell.mark.strip()}}}" if cell.mark else ""
    if cell.order is None:
        text = "--" if cell.text == "-" else escape_latex(cell.text, True) if broken else escape_latex(cell.text)
        return (r"\raggedright " if broken else "") + text + (f"${mark}$" if mark else "")
    # A formula, since a hyphen in text is no minus; digits stand below each other.
    number = rf"\mathbf{{{cell.text}}}" if cell.best else cell.text
    if digits > len(cell.text):
        number = rf"\phantom{{{'0' * (digits - len(cell.text))}}}{{{number}}}"
    return f"${number}{f'_{{{cell.interval}}}' if cell.interval else ''}{mark}$"
