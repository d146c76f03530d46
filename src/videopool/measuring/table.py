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
Row = tuple[Sequence[str], Mapping[str, Any]]  # leading cells, and the numbers of a stage


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


def show_rows(title: str, first: Sequence[str], rows: Sequence[Row], rules: Mapping[str, float]) -> None:
    """Print a table; `first`: headings of the leading cells, of which the first groups rows where there are two."""
    table = Table(title=plain(title, "table.title"))
    for name in first:
        table.add_column(name)
    for name in HEADINGS:
        table.add_column(name, justify="right")
    group = ""
    for (start, *rest), numbers in rows:
        same = bool(rest) and start == group
        if rest and group and not same:
            table.add_section()
        group = start
        table.add_row(*map(plain, ["" if same else start, *rest, *_cells(numbers)]))
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
