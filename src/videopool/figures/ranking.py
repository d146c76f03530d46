"""Scores one below the other, best first: what is left to draw where there are too many lines for a plot."""

from textwrap import fill

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.scores import line_names, title_of
from videopool.figures.style import COLOURS, MARKERS, STYLE

WIDTH = 46  # letters of a name, above which it is broken


def ranked(table: pd.DataFrame, group: str | None = None) -> Figure:
    """A row a pooling (and model, stage, prompt, judge where these vary), a mark for each number of frames.

    Rows are ordered by their best score; behind a name stand its visual tokens.

    Args:
        table: complete points of one benchmark, from results.load_study.
        group: a group of tasks; None for the headline.
    """
    tail = f"_{group}" if group else ""
    score, low, high, chance = (f"{name}{tail}" for name in ("score", "ci_low", "ci_high", "chance"))
    table = table[table[score].notna()]
    table = table.assign(line=line_names(table, "frames"))
    best = table.groupby("line", sort=False)[score].max().sort_values(ascending=False, kind="stable")
    names = list(best.index)
    counts = sorted(table.frames.unique())
    height = 1.6 + 0.3 * len(names)
    with matplotlib.rc_context({**STYLE, "figure.figsize": (8.0, height)}):
        figure = Figure()
        axes = figure.add_subplot()
        for number, frames in enumerate(counts):
            own = table[table.frames == frames]
            scores = 100 * own[score].astype(float)
            axes.errorbar(
                scores,
                [names.index(name) for name in own.line],
                xerr=[scores - 100 * own[low].astype(float), 100 * own[high].astype(float) - scores],
                linestyle="none",
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                capsize=2.5,
                elinewidth=1.4,
                label=f"{frames:g}",
            )
        if table[chance].notna().all():
            axes.axvline(100 * float(table[chance].mean()), color="grey", linestyle="--", linewidth=1.2, label="chance")
        axes.set_yticks(range(len(names)), [_told(table, name) for name in names], fontsize=9.5)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("score, % (95 % interval)")
        axes.set_title(title_of(table, group))
        figure.legend(title="frames", loc="outside lower center", ncols=6)
    return figure


def _told(table: pd.DataFrame, name: str) -> str:
    tokens = sorted(table[table.line == name].visual_tokens.dropna().astype(int).unique())
    return fill(f"{name}  ({', '.join(map(str, tokens))})" if tokens else name, WIDTH)
