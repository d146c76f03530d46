"""Rows of marks with intervals: differences from a baseline, and ranked scores."""

from collections.abc import Sequence
from itertools import pairwise
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from videopool.figures.scores import INTERVALS, columns_of, drawn_once, error_marks, line_names, score_axis, title_of
from videopool.figures.style import BLUE, GUIDE, LINE, WIDTH, drawing, frames_look, legend, looks

LETTERS = 27  # in a line of a row's name
ROW, MARK = 0.06, 0.1  # inches of a row, and of a line of its name or of a mark in it
LEAST = 10.0  # percentage points that an axis of differences reaches to each side, at least


def differences(table: pd.DataFrame, rows: str, colours: str | None = None, view: str = "", title: str = "") -> Figure:
    """A mark for each difference, with its 95 % interval if it has one; marks left of zero are losses.

    Poolings are ordered by the mean of their differences, tasks by theirs, with all tasks on top.

    table: `difference`, `difference_low` and `difference_high` as shares, from results.compared_study (with the view's
    prefix, "iso_token_") or results.by_task_table. rows: the column that names the rows. colours: the column that tells
    the marks of one row apart, such as "frames". title: what is compared, for the caption.
    """
    columns = [f"{view}difference", f"{view}difference_low", f"{view}difference_high"]
    shown = table[table[columns[0]].notna()]
    if rows == "pooling":
        shown, names = drawn_once(shown.assign(line=shown[rows]))
    else:
        words = shown[rows].str.replace("_", " ").replace("all", "all tasks of the score")
        counts = [f" (n\u00a0=\u00a0{n})" for n in shown.n.astype(int)] if "n" in shown else ""
        names = dict(zip(shown[rows], words + counts, strict=True))
    means = shown.groupby(rows)[columns[0]].mean()
    order = sorted(names, key=lambda name: (name != "all", -means[name]))
    kinds: list[Any] = sorted(shown[colours].unique()) if colours else order
    if colours == "frames":
        styles = {str(kind): frames_look(kind) for kind in kinds}
    elif colours or rows == "pooling":
        styles = looks(map(str, table[colours or rows].unique()))
    else:
        styles = {name: {"color": BLUE, "marker": "o"} for name in order}
    marks = len(kinds) if colours else 1  # in a row
    named = [names[name] for name in order]
    with drawing(WIDTH, 0.6 + _height(named, marks) + (0.3 if colours else 0)) as figure:
        axes = figure.add_subplot()
        axes.axvline(0, **GUIDE)
        for number, kind in enumerate(kinds):
            own = shown[shown[colours or rows] == kind]
            places = [order.index(name) + _apart(number % marks, marks) for name in own[rows]]
            error_marks(axes, "x", own, columns, places, label=str(kind), **styles[str(kind)])
        _name_rows(axes, named)
        ends = 100 * shown[columns].astype(float)
        axes.set_xlim(min([-LEAST, 1.05 * ends.min().min()]), max([LEAST, 1.05 * ends.max().max()]))
        axes.set_xlabel("difference of the score, points")
        if not order:
            axes.text(0.5, 0.5, "nothing to compare", ha="center", transform=axes.transAxes)
        elif colours:
            legend(figure, axes.get_legend_handles_labels()[0], colours)
        what = f"Difference of the score, {' '.join(title.split())}" if title else "Difference of the score"
        figure.set_label(f"{what}, with {INTERVALS}; rows from the largest mean difference to the smallest.")
    return figure


def ranked(table: pd.DataFrame, group: str | None = None) -> Figure:
    """One row per pooling (and model, stage, prompt, judge where these vary), one mark per number of frames.

    Rows are ordered by their best score in the group of tasks (None: the headline). Poolings of equal maps share a row.
    table: complete points of one benchmark, from results.load_study.
    """
    columns = columns_of(group)
    table = table[table[columns[0]].notna()]
    caption = f"{title_of(table, group)}: scores with {INTERVALS}, best first; in brackets: visual tokens."
    table, names = drawn_once(table.assign(line=line_names(table, "frames")))
    order = list(table.groupby("line", sort=False)[columns[0]].max().sort_values(ascending=False, kind="stable").index)
    counts = sorted(table.frames.unique())
    for name, tokens in table.dropna(subset="visual_tokens").groupby("line").visual_tokens:
        names[name] += f"  ({', '.join(map(str, sorted(tokens.astype(int).unique())))})"
    named = [names[name] for name in order]
    with drawing(WIDTH, 0.6 + LINE * 2 + _height(named, 1)) as figure:
        axes = figure.add_subplot()
        for number, frames in enumerate(counts):
            own = table[table.frames == frames]
            places = [order.index(name) + _apart(number, len(counts)) for name in own.line]
            error_marks(axes, "x", own, columns[:3], places, label=f"{frames:g}", **frames_look(frames))
        handles = axes.get_legend_handles_labels()[0]
        _name_rows(axes, named)
        chance, cut = score_axis(axes, "x", table, columns)
        legend(figure, [*handles, *chance], "frames")
        figure.set_label(caption + cut)
    return figure


def _apart(number: int, marks: int) -> float:
    """Place of a mark in its row of several, in rows."""
    return min(0.2, 0.8 / marks) * (number - (marks - 1) / 2)


def _height(names: Sequence[str], marks: int) -> float:
    """Inches of the rows, far enough apart for the names of neighbours and for their marks."""
    lines = [fill(name, LETTERS).count("\n") + 1 for name in names]
    most = max([marks, *(sum(pair) / 2 for pair in pairwise(lines))])
    return max(1, len(names)) * (ROW + MARK * most)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [fill(name, LETTERS) for name in names])
    axes.set_ylim(max(1, len(names)) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
