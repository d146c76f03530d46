"""Paired differences with their intervals, one below the other."""

from textwrap import fill

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, MARKERS, STYLE

WIDTH = 38  # letters of a row's name, above which it is broken
APART = 0.2  # rows, between the marks of one name


def differences(table: pd.DataFrame, rows: str, colours: str | None = None, view: str = "", title: str = "") -> Figure:
    """A mark for each difference, with its 95 % interval where it has one; those left of zero are losses.

    Args:
        table: columns `difference`, `difference_low` and `difference_high` as shares, from results.compared_study or
            results.by_task_table. Rows without a difference are left out.
        rows: the column whose values stand below each other.
        colours: the column that tells marks of one row apart, such as "frames".
        view: what the names of the columns begin with: "iso_token_" for that view of compared_study.
        title: of the figure.
    """
    value, low, high = (f"{view}difference{tail}" for tail in ("", "_low", "_high"))
    shown = table[table[value].notna()]
    names = list(dict.fromkeys(shown[rows]))
    kinds = sorted(shown[colours].unique()) if colours else [None]
    apart = min(APART, 0.8 / max(1, len(kinds)))
    height = 1.4 + (0.2 + 0.14 * len(kinds)) * max(1, len(names)) + (0.6 if colours else 0)
    with matplotlib.rc_context({**STYLE, "figure.figsize": (7.2, height)}):
        figure = Figure()
        axes = figure.add_subplot()
        axes.axvline(0, color="grey", linestyle="--", linewidth=1.2)
        for number, kind in enumerate(kinds):
            own = shown if kind is None else shown[shown[colours] == kind]
            centre = 100 * own[value].astype(float)
            # Where all samples are of one clip there is no interval: bounds are None.
            reach = [centre - 100 * own[low].astype(float), 100 * own[high].astype(float) - centre]
            places = [names.index(name) + apart * (number - (len(kinds) - 1) / 2) for name in own[rows]]
            axes.errorbar(
                centre,
                places,
                xerr=reach,
                linestyle="none",
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                capsize=2.5,
                elinewidth=1.4,
                label=None if kind is None else str(kind),
            )
        axes.set_yticks(range(len(names)), [fill(str(name).replace("_", " "), WIDTH) for name in names], fontsize=10)
        axes.set_ylim(max(1, len(names)) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("difference of the score, percentage points (95 % interval)", fontsize=11)
        if title:
            axes.set_title(title)
        if not names:
            axes.text(0.5, 0.5, "nothing to compare", ha="center", transform=axes.transAxes)
        elif colours:
            figure.legend(title=colours, loc="outside lower center", ncols=6)
    return figure
