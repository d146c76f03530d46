"""Tables for papers: LaTeX with booktabs alone, as wide as a column of text, or as the page if that is too narrow."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from videopool.runtime.tables import Cell, Heading, Row, TextTable

NAMED = {
    "\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar",
}  # fmt: skip
ESCAPED = {letter: rf"\text{name}{{}}" for letter, name in NAMED.items()}
ESCAPED |= {letter: f"\\{letter}" for letter in "{}$&#%_"} | {'"': "''"}
# By their Unicode names: what every LaTeX has beyond ASCII. The accents are those of its oldest font encoding.
GREEK = re.compile("GREEK SMALL LETTER (?!OMICRON|FINAL)([A-Z]+)")
SYMBOLS = {
    "MULTIPLICATION SIGN": r"$\times$", "LESS-THAN OR EQUAL TO": r"$\leq$", "GREATER-THAN OR EQUAL TO": r"$\geq$",
    "PLUS-MINUS SIGN": r"$\pm$", "RIGHTWARDS ARROW": r"$\rightarrow$", "MIDDLE DOT": r"$\cdot$", "MINUS SIGN": "$-$",
    "ALMOST EQUAL TO": r"$\approx$", "INFINITY": r"$\infty$", "EN DASH": "--", "EM DASH": "---",
    "LEFT SINGLE QUOTATION MARK": "`", "RIGHT SINGLE QUOTATION MARK": "'", "LEFT DOUBLE QUOTATION MARK": "``",
    "RIGHT DOUBLE QUOTATION MARK": "''", "HORIZONTAL ELLIPSIS": r"\ldots{}", "LATIN SMALL LETTER SHARP S": r"\ss{}",
    "LATIN SMALL LETTER O WITH STROKE": r"\o{}", "LATIN CAPITAL LETTER O WITH STROKE": r"\O{}",
    "LATIN SMALL LETTER AE": r"\ae{}", "LATIN CAPITAL LETTER AE": r"\AE{}", "MICRO SIGN": r"$\mu$",
}  # fmt: skip
SIGNS = "+\N{MINUS SIGN}"
ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030b\u030c\u0327"
BREAK = r"\allowbreak{}"
# Widths in em of the table's font, a little too large rather than too small.
SINGLE, DOUBLE, GAP = 27.0, 55.0, 0.56  # a column of text, a page of two, between columns
NARROW, WIDE, SCRIPT = "ijlftrI .,:;'|()[]!-", "mwMW@%", 0.84
LEAST, HEAD = 6.5, 2.6  # of words that are broken, and of headings
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
                latex + (BREAK if letter in "_/" or latex[:3] == "[U+" or (long and place % 6 == 5) else "")
                for place, (letter, latex) in enumerate(zip(word, letters, strict=True))
            ]
        words.append("".join(letters))
    return " ".join(words)


def _letter(letter: str) -> str:
    if letter in ESCAPED:
        return ESCAPED[letter]
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if base.isascii() and base.isprintable() and (not accents or (len(accents) == 1 and accents[0] in ACCENTS)):
        return letter
    name = unicodedata.name(letter, "")
    if greek := GREEK.fullmatch(name):
        return rf"$\{greek[1].lower().replace('lamda', 'lambda')}$"
    if name in SYMBOLS:
        return SYMBOLS[name]
    return "" if unicodedata.category(letter)[0] == "C" else f"[U+{ord(letter):04X}]"


def environments(table: TextTable, caption: str, label: str, notes: Sequence[str] = ()) -> str:
    """A table environment, or several for many rows. Letters that a label cannot hold are replaced.

    The best cells are bold, intervals subscripts, marks superscripts; notes, in LaTeX, stand below the table.
    """
    name = re.sub(r"[^A-Za-z0-9:.-]+", "-", label)
    made: list[str] = []
    for part in [page for narrower in _narrower(table) for page in _pages(narrower)]:
        text = rf"Table~\ref{{tab:{name}}}, continued." if made else escape_latex(caption, True)
        made.append(_environment(part, text, f"{name}-{len(made) + 1}" if made else name, notes))
    return "\n".join(made)


def _narrower(table: TextTable) -> list[TextTable]:
    """A table, or several that share its columns and begin with its first one, none wider than a page."""
    blocks, room = [[0]], DOUBLE - _least(table, 0)
    for place in range(1, len(table.headings)):
        width = GAP + _least(table, place)
        if width > room and len(blocks[-1]) > 1:
            blocks.append([0])
            room = DOUBLE - _least(table, 0)
        blocks[-1].append(place)
        room -= width
    return [
        TextTable(
            tuple(table.headings[place] for place in block),
            tuple(replace(row, cells=tuple(row.cells[place] for place in block)) for row in table.rows),
        )
        for block in blocks
    ]


def _least(table: TextTable, place: int) -> float:
    """The least width of a column."""
    width = _width(table.headings[place], [row.cells[place] for row in table.rows])
    return width if table.headings[place].numeric else min(width, LEAST)


def _pages(table: TextTable) -> list[TextTable]:
    """A table, or several with so many of its rows that each fits a page."""
    pages: list[list[Row]] = [[]]
    left, title = LINES, ""
    for row in table.rows:
        title = row.title or title
        words = [_ems(c.text) for c, heading in zip(row.cells, table.headings, strict=True) if not heading.numeric]
        left -= 1 + max(words, default=0) // LEAST + 1.6 * row.rule
        if left < 0 and pages[-1]:
            pages.append([])
            left = LINES
        pages[-1].append(row if pages[-1] else replace(row, title=title))
    return [replace(table, rows=tuple(rows)) for rows in pages]


def _environment(table: TextTable, caption: str, label: str, notes: Sequence[str]) -> str:
    columns = [[row.cells[place] for row in table.rows] for place in range(len(table.headings))]
    widths = [_width(heading, cells) for heading, cells in zip(table.headings, columns, strict=True)]
    gaps = GAP * (len(widths) - 1)
    least = [_least(table, place) for place in range(len(widths))]
    kind, room = ("table", SINGLE) if sum(least) + gaps <= SINGLE else ("table*", DOUBLE)
    fitted = widths.copy()
    while sum(fitted) + gaps > room and (wide := [n for n in range(len(fitted)) if fitted[n] > least[n]]):
        fitted[max(wide, key=fitted.__getitem__)] -= 0.5
    broken = [now < before for now, before in zip(fitted, widths, strict=True)]
    spec = "".join(
        f"p{{{width:.1f}em}}" if wrap else "r" if heading.numeric and not any(cell.interval for cell in cells) else "l"
        for heading, cells, width, wrap in zip(table.headings, columns, fitted, broken, strict=True)
    )
    head = " & ".join(_heading(h, w, s) for h, w, s in zip(table.headings, fitted, _letters(spec), strict=True))
    digits = [max((len(cell.text) for cell in cells if cell.interval), default=0) for cells in columns]
    lines: list[str] = []
    total = sum(fitted) + gaps
    for row in table.rows:
        if row.rule and lines:
            lines.append(r"\addlinespace")
        if row.title:
            kind_of, side = (f"p{{{total:.1f}em}}", r"\raggedright") if 1.1 * _ems(row.title) > total else ("l", "")
            title = rf"{side}\emph{{{escape_latex(row.title, kind_of != 'l')}}}"
            lines.append(rf"\multicolumn{{{len(columns)}}}{{@{{}}{kind_of}@{{}}}}{{{title}}} \\")
        cells = " & ".join(map(_cell, row.cells, digits, broken))
        lines.append(cells + (r" \tabularnewline" if broken[-1] else r" \\"))
    narrow = rf"\ifdim\linewidth<{1.03 * total:.1f}em"
    text = [
        r"% Needs \usepackage{booktabs}.",
        rf"\begin{{{kind}}}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        r"\small"
        + "".join(rf"{narrow}\{size}\fi" for size in ("footnotesize", "scriptsize"))
        + "% smaller in a narrow column",
        r"\setlength{\tabcolsep}{0.28em}",
        rf"\begin{{tabular}}{{@{{}}{spec}@{{}}}}",
        *(r"\toprule", rf"{head} \\", r"\midrule", *lines, r"\bottomrule"),
        r"\end{tabular}",
        *([rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize\raggedright {'; '.join(notes)}.}}"] if notes else []),
        rf"\end{{{kind}}}",
    ]
    return "".join(f"{line}\n" for line in text)


def _letters(spec: str) -> str:
    """The letter of each column."""
    return re.sub(r"\{.*?\}", "", spec)


def _heading(heading: Heading, width: float, letter: str) -> str:
    """A heading, its first letter a capital, broken into lines where its column is narrower."""
    text = heading.text
    if text[1:2].isalpha():
        text = text[0].upper() + text[1:]
    if _ems(text) <= width:
        return escape_latex(text)
    side = r"\raggedleft" if letter == "r" else r"\raggedright"
    return rf"\parbox[b]{{{width:.1f}em}}{{{side} {escape_latex(text)}}}"


def _ems(text: str) -> float:
    """The estimated width of a text."""
    return sum(map(_em, text))


def _em(letter: str) -> float:
    if letter in NARROW:
        return 0.29
    if letter in WIDE:
        return 0.85
    if letter.islower() or letter.isdigit() or letter == "*":
        return 0.51
    return 0.79 if letter.isascii() or letter in SIGNS else 4.5


def _width(heading: Heading, cells: Sequence[Cell]) -> float:
    """The estimated width of a column."""
    longest = max(map(_ems, heading.text.split()))
    widths = [
        (1.16 if cell.best else 1) * _ems(_number(cell.text))
        + SCRIPT * (_ems(_number(cell.interval).replace(" ", "")) + _ems(_mark(cell.mark)))
        for cell in cells
    ]
    half = max(longest, _ems(heading.text) / 3) + 0.55
    return max(HEAD, half, *widths) if heading.numeric else max(half, *widths)


def _number(text: str) -> str:
    return text.replace("-", SIGNS[1])


def _cell(cell: Cell, digits: int, broken: bool) -> str:
    mark = f"{{}}^{{{_mark(cell.mark)}}}" if cell.mark else ""
    if cell.order is None:
        text = "--" if cell.text == "-" else escape_latex(cell.text, broken)
        return (r"\raggedright " if broken else "") + text + (f"${mark}$" if mark else "")
    # A formula, since a hyphen in text is no minus; digits stand below each other.
    number = rf"\mathbf{{{cell.text}}}" if cell.best else cell.text
    if digits > len(cell.text):
        number = rf"\phantom{{{'0' * (digits - len(cell.text))}}}" + re.sub("^[+-]", r"{\g<0>}", number)
    return f"${number}{f'_{{{cell.interval}}}' if cell.interval else ''}{mark}$"


def _mark(mark: str) -> str:
    return mark.strip(" ()")
