"""Norms in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from videopool.norms import load_norms
from videopool.norms.outliers import GAP, ROBUST_Z, TIMES_MEDIAN
from videopool.runtime.terminal import console, plain

HEADINGS = ("tokens", "median", "max/med.", "kurtosis", "Gini", ">k med. %", "robust z %", "gap %", "again % (chance)",
            "cosine")  # fmt: skip


def tell_norms(folder: Path) -> None:
    """Print what a point measured, and where its files are."""
    numbers = load_norms(folder).numbers
    rows = [([name], stage) for name, stage in numbers["stages"].items()]
    show_rows(f"norms of {folder.name}", ["stage"], rows, numbers["about"]["rules"])
    for layer, found in numbers["attention"].items():
        share, correlation = _percent(found["visual_share"]), _digits(found["spearman"])
        print(f"        attention in layer {layer}: {share} % on visual tokens; Spearman with their norm {correlation}")
    for name, reason in numbers["failed"].items():
        print(f"        not measured: {name}: {reason}")
    print(f"        files: {folder}")


def show_rows(
    title: str,
    first: Sequence[str],
    rows: Sequence[tuple[Sequence[str], Mapping[str, Any]]],
    rules: Mapping[str, float],
) -> None:
    """Print a table.

    Args:
        first: headings of the leading columns; rows that have the first of two in common stand together.
        rows: cells of the leading columns, and the numbers of a stage.
        rules: by name, for the caption.
    """
    table = Table(title=plain(title, "table.title"))
    for name in first:
        table.add_column(name)
    for name in HEADINGS:
        table.add_column(name, justify="right")
    before = ""
    for leading, numbers in rows:
        if len(leading) > 1 and leading[0] != before and before:
            table.add_section()
        shown = ["" if len(leading) > 1 and leading[0] == before else leading[0], *leading[1:]]
        before = leading[0]
        table.add_row(*map(plain, [*shown, *_cells(numbers)]))
    table.caption = (
        f"outliers: above k={rules[TIMES_MEDIAN]:g} medians of the clip; robust z above {rules[ROBUST_Z]:g}; above a "
        f"gap of the histogram at least {rules[GAP]:g} times wide\nagain: outliers above k medians that are so in the "
        "next frame too; cosine: of neighbouring frames, at equal positions"
    )
    screen = console()
    screen.print(table)
    for leading, numbers in rows:
        if numbers["zero"] or numbers["not_finite"]:
            screen.print(
                f"        {' '.join(leading)}: {numbers['zero']} tokens of norm 0, {numbers['not_finite']} with NaN or "
                f"infinite values, of {numbers['tokens']}; they are in no other number",
                soft_wrap=True,
                highlight=False,
            )


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    outliers = numbers["outliers"]
    again, chance = (_percent(outliers[TIMES_MEDIAN][name]) for name in ("next_frame", "next_frame_by_chance"))
    return [
        str(numbers["tokens"]),
        *(_digits(value) for value in (numbers["quantiles"]["0.5"], numbers["max_over_median"])),
        *(_digits(numbers[name]) for name in ("excess_kurtosis", "gini")),
        *(_percent(outliers[rule]["share"]) for rule in (TIMES_MEDIAN, ROBUST_Z)),
        _percent(numbers[GAP]["share"]),
        again if again == "-" else f"{again} ({chance})",
        _digits(numbers["neighbour_cosine"]),
    ]


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g}"
