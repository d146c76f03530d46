"""Marks with intervals in rows: differences, and ranked scores, which still fit when lines are too many for a plot."""

from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from videopool.figures.scores import columns_of, line_names, title_of
from videopool.figures.style import GUIDE, drawing, look

WIDTH, WIDE = 38, 46  # letters in a line of a row's name: of differences, of ranked scores
APART = 0.2  # rows, between the marks of one name


def _marks(axes: Axes, rows: pd.DataFrame, columns: tuple[str, str, str], places: list[Any], **look: Any) -> None:
    """A mark with its interval for each row, from shares; bounds are None where there is no interval."""
    centre, low, high = (100 * rows[name].astype(float) for name in columns)
    reach = [centre - low, high - centre]
    axes.errorbar(centre, places, xerr=reach, linestyle="none", capsize=2.5, elinewidth=1.4, **look)


def _name_rows(axes: Axes, names: list[str], size: float) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_ylim(max(1, len(names)) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def differences(table: pd.DataFrame, rows: str, colours: str | None = None, view: str = "", title: str = "") -> Figure:
    """A mark for each difference, with its 95 % interval if it has one; marks left of zero are losses.

    table: `difference`, `difference_low` and `difference_high` as shares, from results.compared_study (with the view's
    prefix, "iso_token_") or results.by_task_table. rows: the column that names the rows. colours: the column that tells
    the marks of one row apart, such as "frames".
    """
    columns = (f"{view}difference", f"{view}difference_low", f"{view}difference_high")
    shown = table[table[columns[0]].notna()]
    names = list(dict.fromkeys(shown[rows]))
    kinds = sorted(shown[colours].unique()) if colours else [None]
    apart = min(APART, 0.8 / max(1, len(kinds)))
    height = 1.4 + (0.2 + 0.14 * len(kinds)) * max(1, len(names)) + (0.6 if colours else 0)
    with drawing(7.2, height) as figure:
        axes = figure.add_subplot()
        axes.axvline(0, **GUIDE)
        for number, kind in enumerate(kinds):
            own = shown if kind is None else shown[shown[colours] == kind]
            places = [names.index(name) + apart * (number - (len(kinds) - 1) / 2) for name in own[rows]]
            _marks(axes, own, columns, places, label=None if kind is None else str(kind), **look(number))
        _name_rows(axes, [fill(str(name).replace("_", " "), WIDTH) for name in names], 10)
        axes.set_xlabel("difference of the score, percentage points (95 % interval)", fontsize=11)
        if title:
            axes.set_title(title)
        if not names:
            axes.text(0.5, 0.5, "nothing to compare", ha="center", transform=axes.transAxes)
        elif colours:
            figure.legend(title=colours, loc="outside lower center", ncols=6)
    return figure


def ranked(table: pd.DataFrame, group: str | None = None) -> Figure:
    """One row per pooling (and model, stage, prompt, judge where these vary), one mark per number of frames.

    Rows are ordered by their best score in the group of tasks (None: the headline); the visual tokens follow the name.
    table: complete points of one benchmark, from results.load_study.
    """
    *columns, chance = columns_of(group)
    score, low, high = columns
    table = table[table[score].notna()]
    table = table.assign(line=line_names(table, "frames"))
    best = table.groupby("line", sort=False)[score].max().sort_values(ascending=False, kind="stable")
    names = list(best.index)
    with drawing(8.0, 1.6 + 0.3 * len(names)) as figure:
        axes = figure.add_subplot()
        for number, frames in enumerate(sorted(table.frames.unique())):
            own = table[table.frames == frames]
            places = [names.index(name) for name in own.line]
            _marks(axes, own, (score, low, high), places, label=f"{frames:g}", **look(number))
        if table[chance].notna().all():
            axes.axvline(100 * float(table[chance].mean()), label="chance", **GUIDE)
        _name_rows(axes, [_with_tokens(table, name) for name in names], 9.5)
        axes.set_xlabel("score, % (95 % interval)")
        axes.set_title(title_of(table, group))
        figure.legend(title="frames", loc="outside lower center", ncols=6)
    return figure


def _with_tokens(table: pd.DataFrame, name: str) -> str:
    tokens = sorted(table[table.line == name].visual_tokens.dropna().astype(int).unique())
    return fill(f"{name}  ({', '.join(map(str, tokens))})" if tokens else name, WIDE)
