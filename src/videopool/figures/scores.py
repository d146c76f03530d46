"""Scores against frames and against visual tokens."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, MARKERS, STYLE

AXES = {"frames": "frames", "visual_tokens": "visual tokens per clip"}


def score_against(table: pd.DataFrame, axis: str, group: str | None = None) -> Figure:
    """One line a pooling, with 95 % intervals and chance.

    Args:
        table: complete points of one benchmark, from results.load_study.
        axis: "frames" or "visual_tokens".
        group: a group of tasks; None for the headline.
    """
    tail = f"_{group}" if group else ""
    score, low, high, chance = (f"{name}{tail}" for name in ("score", "ci_low", "ci_high", "chance"))
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        names = list(dict.fromkeys(table.pooling))
        for number, name in enumerate(names):
            rows = table[table.pooling == name].sort_values("frames").astype({axis: float})
            # Points at the same place are set apart a little, so that intervals stay readable.
            shift = 1.0 + 0.02 * (number - (len(names) - 1) / 2)
            axes.errorbar(
                rows[axis] * shift,
                100 * rows[score].astype(float),
                yerr=[100 * (rows[score] - rows[low]).astype(float), 100 * (rows[high] - rows[score]).astype(float)],
                label=name,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle="-" if axis == "frames" else ":",
                capsize=2.5,
                elinewidth=1.2,
            )
            if axis == "visual_tokens" and rows[axis].is_unique:
                for _, row in rows.iterrows():
                    place = (row[axis] * shift, 100 * float(row[score]))
                    axes.annotate(f"{int(row.frames)}", place, (4, 4), textcoords="offset points", fontsize=8)
        if table[chance].notna().all():
            axes.axhline(100 * float(table[chance].mean()), color="grey", linestyle="--", linewidth=1.2, label="chance")
        axes.set_xscale("log", base=2)
        ticks = sorted({float(v) for v in table[axis]})
        axes.set_xticks(ticks if len(ticks) < 8 else ticks[:: len(ticks) // 6])
        axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%d"))
        axes.minorticks_off()
        axes.set_xlabel(AXES[axis] + (" (numbers: frames)" if axis == "visual_tokens" else ""))
        axes.set_ylabel("score, % (95 % interval)")
        benchmark, model = table.benchmark.iloc[0], table.model.iloc[0]
        axes.set_title(f"{model} on {benchmark}" + (f", {group} tasks" if group else ""))
        figure.legend(loc="outside lower center", ncols=3)
    return figure
