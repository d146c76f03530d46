"""Norms in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videopool.norms import load_norms
from videopool.norms.outliers import GAP, ROBUST_Z, TIMES_MEDIAN
from videopool.runtime.tables import Cell, Heading, Row, TextTable, show_table
from videopool.runtime.terminal import console

# Of the numbers of a stage: the rank of each column, and its note, where {} is a threshold.
HEADINGS = {
    "tokens": (5, ""),
    "median": (1, ""),
    "max / median": (4, ""),
    "excess kurtosis": (7, ""),
    "Gini": (6, ""),
    "high-norm tokens, %": (2, "high-norm: above k={} medians of the clip"),
    "robust outliers, %": (8, "robust outliers: robust z above {}"),
    "above the gap, %": (9, "gap: of the histogram, at least {} times wide"),
    "persistence, % (by chance)": (3, "persistence: high-norm tokens that are so in the next frame too"),
    "cosine": (6, "cosine: of neighbouring frames, at equal positions"),
}
RULES = {"high-norm tokens, %": TIMES_MEDIAN, "robust outliers, %": ROBUST_Z, "above the gap, %": GAP}
Measured = tuple[Sequence[str], Mapping[str, Any]]  # leading cells, and the numbers of a stage


def tell_norms(folder: Path) -> None:
    """Print the numbers of a point, and where its files are."""
    numbers = load_norms(folder).numbers
    rows = [([name], stage) for name, stage in numbers["stages"].items()]
    show_rows(f"norms of {folder.name}", ["stage"], rows, numbers["about"]["rules"])
    for layer, attention in numbers["attention"].items():
        share, correlation = _percent(attention["visual_share"]), _digits(attention["spearman"])
        print(f"        attention in layer {layer}: {share} % on visual tokens; Spearman with their norm {correlation}")
    for name, reason in numbers["failed"].items():
        print(f"        not measured: {name}: {reason}")
    print(f"        files: {folder}")


def show_rows(title: str, first: Sequence[str], rows: Sequence[Measured], rules: Mapping[str, float]) -> None:
    """Print a table; `first`: headings of the leading cells, of which the first groups rows where there are two."""
    lines, group = [], None
    for (start, *rest), numbers in rows:
        same = bool(rest) and start == group
        cells = tuple(map(Cell, ["" if same else start, *rest, *_cells(numbers)]))
        lines.append(Row(cells, rule=bool(rest) and not same))
        group = start
    headings = [Heading(name, False) for name in first]
    for name, (rank, note) in HEADINGS.items():
        threshold = f"{rules[RULES[name]]:g}" if name in RULES else ""
        headings.append(Heading(name, rank=rank, note=note.format(threshold)))
    show_table(TextTable(tuple(headings), tuple(lines)), title)
    screen = console()
    for leading, numbers in rows:
        if numbers["zero"] or numbers["not_finite"]:
            screen.print(
                f"        {' '.join(leading)}: {numbers['zero']} tokens of norm 0, {numbers['not_finite']} with NaN or "
                f"infinite values, of {numbers['tokens']}; they enter no other number",
                soft_wrap=True,
                highlight=False,
            )


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    outliers = numbers["outliers"]
    again, chance = (_percent(outliers[TIMES_MEDIAN][name]) for name in ("next_frame", "next_frame_by_chance"))
    return [
        str(numbers["tokens"]),
        _digits(numbers["quantiles"]["0.5"]),
        *(_digits(numbers[name]) for name in ("max_over_median", "excess_kurtosis", "gini")),
        *(_percent(outliers[rule]["share"]) for rule in (TIMES_MEDIAN, ROBUST_Z)),
        _percent(numbers[GAP]["share"]),
        again if again == "-" else f"{again} ({chance})",
        _digits(numbers["neighbour_cosine"]),
    ]


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g}"
