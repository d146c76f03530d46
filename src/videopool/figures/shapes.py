"""Scores over the shape that a pooling leaves of the grid: how much time, how much space."""

from collections.abc import Sequence
from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from videopool.figures.style import STYLE

# Points are compared in one panel only if nothing but the shape differs.
PANEL = ("model", "stage", "lora_alpha", "seed", "judge", "prompt", "operator", "frames")
ACROSS = 3  # panels in a row
MAP = "cividis"
DARK = 0.5  # share of the colours' range below which text is white


def shape_panels(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Points that differ in nothing but a square shape, a table for each panel of score_by_shape.

    Args:
        table: complete points of one benchmark, from results.add_pooled_shapes.

    Returns:
        Those groups that hold two numbers of frames with two sizes each, so that both directions can be seen.
    """
    square = table[table.pooled_height == table.pooled_width]
    groups = square.groupby([name for name in PANEL if name in square], dropna=False, sort=False)
    return [rows for _, rows in groups if _has_square_of_four(rows)]


def _has_square_of_four(rows: pd.DataFrame) -> bool:
    sizes = [set(frame.pooled_height) for _, frame in rows.groupby("pooled_frames")]
    return any(len(one & other) > 1 for one, other in combinations(sizes, 2))


def score_by_shape(panels: Sequence[pd.DataFrame], group: str | None = None) -> Figure:
    """A heat map of the score over (T', H' = W'), a panel each, with the 95 % interval in each cell.

    Args:
        panels: from shape_panels.
        group: a group of tasks; None for the headline.
    """
    tail = f"_{group}" if group else ""
    names = [f"{name}{tail}" for name in ("score", "ci_low", "ci_high")]
    # Colours span the intervals, not the scores alone, so that noise looks like noise.
    span = 100 * pd.concat(panels)[names].astype(float).to_numpy()
    limits = (float(np.nanmin(span)), float(np.nanmax(span)))
    widest = max(rows.pooled_height.nunique() for rows in panels)
    tallest = max(rows.pooled_frames.nunique() for rows in panels)
    columns = min(ACROSS, len(panels))
    down = -(-len(panels) // columns)
    size = (max(5.4, columns * (1.2 * widest + 0.9) + 1.4), down * (0.72 * tallest + 1.1) + 0.8)
    told = [name for name in PANEL if name in panels[0] and pd.concat(panels)[name].nunique(dropna=False) > 1]
    with matplotlib.rc_context({**STYLE, "figure.figsize": size, "axes.grid": False}):
        figure = Figure()
        for number, rows in enumerate(panels):
            axes = figure.add_subplot(down, columns, number + 1)
            _panel(axes, rows, names, limits)
            axes.set_title(_title(rows, told), fontsize=11)
        colours = ScalarMappable(Normalize(*limits), MAP)
        bar = figure.colorbar(colours, ax=figure.axes, label="score, %", aspect=30)
        bar.outline.set_visible(False)
        first = panels[0].iloc[0]
        what = f"{first.model} on {first.benchmark}" if "model" not in told else str(first.benchmark)
        figure.suptitle(what + (f", {group} tasks" if group else ""), fontsize=13)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, names: Sequence[str], limits: tuple[float, float]) -> None:
    """Draw one heat map; shapes that were not run stay white."""
    by_cell = rows.drop_duplicates(["pooled_frames", "pooled_height"]).set_index(["pooled_frames", "pooled_height"])
    values = 100 * by_cell[list(names)].astype(float)
    scores = values[names[0]].unstack()
    axes.imshow(scores, cmap=MAP, vmin=limits[0], vmax=limits[1], origin="lower", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(range(scores.shape[1]), [f"{size} x {size}" for size in scores.columns])
    axes.set_yticks(range(scores.shape[0]), [str(frames) for frames in scores.index])
    axes.set_xlabel("cells of a frame, H' x W'")
    axes.set_ylabel("frames left, T'")
    spread = limits[1] - limits[0] or 1.0
    for row, frames in enumerate(scores.index):
        for column, size in enumerate(scores.columns):
            if (frames, size) not in values.index or pd.isna(scores.loc[frames, size]):
                axes.text(column, row, "not run", ha="center", va="center", color="grey", fontsize=9)
                continue
            score, low, high = values.loc[(frames, size)]
            dark = (score - limits[0]) / spread < DARK
            text = f"{score:.1f}" + ("" if pd.isna(low) else f"\n[{low:.1f}, {high:.1f}]")
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)


def _title(rows: pd.DataFrame, told: Sequence[str]) -> str:
    """The operator and frames of a panel, and what else tells it from the others."""
    first = rows.iloc[0]
    parts = [str(first.operator), f"{int(first.frames)} frames sampled"]
    words = {
        "stage": "at the {}",
        "lora_alpha": "alpha {:g}",
        "seed": "seed {:g}",
        "judge": "judge {}",
        "prompt": "prompt {}",
        "model": "{}",
    }
    parts += [words[name].format(first[name]) for name in told if name in words and not pd.isna(first[name])]
    return ", ".join(parts)
