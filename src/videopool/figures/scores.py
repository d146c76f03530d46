"""Scores against frames and against visual tokens."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.pareto import pareto_front
from videopool.figures.style import COLOURS, MARKERS, STYLE

AXES = {"frames": "frames", "visual_tokens": "visual tokens per clip"}
CLOSE = 0.08  # difference of two scores whose labels would meet
FRONT = "Pareto front"
FRONT_STYLE: dict[str, Any] = {
    "color": "#444444",
    "linewidth": 4,
    "alpha": 0.3,
    "zorder": 1,
    "solid_joinstyle": "miter",
}


def score_against(table: pd.DataFrame, axis: str, group: str | None = None) -> Figure:
    """One line a pooling, with 95 % intervals and chance; against visual tokens also the Pareto front.

    The front is that of the scores drawn. Points whose intervals overlap may change places on it.

    Args:
        table: complete points of one benchmark, from results.load_study.
        axis: "frames" or "visual_tokens".
        group: a group of tasks; None for the headline.
    """
    tail = f"_{group}" if group else ""
    score, low, high, chance = (f"{name}{tail}" for name in ("score", "ci_low", "ci_high", "chance"))
    table = table[table[score].notna()]
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        names = list(dict.fromkeys(table.pooling))
        numbered = axis == "visual_tokens" and table.frames.nunique() > 1
        drawn: list[tuple[float, float, float]] = []  # axis, score, place of the marker
        for number, name in enumerate(names):
            rows = table[table.pooling == name].sort_values("frames").astype({axis: float})
            # Points at the same place are set apart a little, so that intervals stay readable.
            shift = 1.0 + min(0.02, 0.12 / len(names)) * (number - (len(names) - 1) / 2)
            scores = 100 * rows[score].astype(float)
            drawn += zip(rows[axis], scores, rows[axis] * shift, strict=True)
            axes.errorbar(
                rows[axis] * shift,
                scores,
                yerr=[100 * (rows[score] - rows[low]).astype(float), 100 * (rows[high] - rows[score]).astype(float)],
                label=name,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],  # another one when colours repeat
                linestyle="-" if axis == "frames" else ":",
                capsize=2.5,
                elinewidth=1.2,
            )
            if numbered and rows[axis].is_unique:
                for _, row in rows.iterrows():
                    place = (row[axis] * shift, 100 * float(row[score]))
                    # Just below a point with as many tokens the number stands on the other side, clear of that one's.
                    above = table[score][table[axis] == row[axis]].max() - row[score]
                    side, offset = ("right", (-5, -10)) if 0 < above < CLOSE else ("left", (4, 4))
                    axes.annotate(f"{int(row.frames)}", place, offset, textcoords="offset points", fontsize=8, ha=side)
        if axis == "visual_tokens":
            front = [drawn[place] for place in pareto_front([x for x, _, _ in drawn], [y for _, y, _ in drawn])]
            axes.step(
                [*(place for _, _, place in front), max(place for _, _, place in drawn)],
                [*(y for _, y, _ in front), front[-1][1]],
                where="post",
                label=FRONT,
                **FRONT_STYLE,
            )
        if table[chance].notna().all():
            axes.axhline(100 * float(table[chance].mean()), color="grey", linestyle="--", linewidth=1.2, label="chance")
        axes.set_xscale("log", base=2)
        ticks = sorted({float(v) for v in table[axis]})
        axes.set_xticks(ticks if len(ticks) < 8 else ticks[:: len(ticks) // 6])
        axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%d"))
        axes.minorticks_off()
        axes.set_xlabel(AXES[axis] + (" (numbers: frames)" if numbered else ""))
        axes.set_ylabel("score, % (95 % interval)")
        benchmark, model = table.benchmark.iloc[0], table.model.iloc[0]
        axes.set_title(f"{model} on {benchmark}" + (f", {group} tasks" if group else ""))
        figure.legend(loc="outside lower center", ncols=3)
    return figure
