"""Heat maps of scores over the shape after pooling."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from videopool.figures.scores import INTERVALS, columns_of, title_of
from videopool.figures.style import WIDTH, drawing, span

# Points share a panel only if nothing but the shape differs. By column, its words in a panel's title; "": none.
PANEL = {
    "model": "{}", "stage": "at the {}", "lora_alpha": "alpha {:g}", "seed": "seed {:g}", "judge": "judge {}",
    "pruning": "{}", "prompt": "prompt {}", "operator": "", "frames": "",
}  # fmt: skip
MAP = "cividis"
DARK = 0.5  # share of the colours' range below which text is white
CELL, ROW = 0.5, 0.3  # inches of a cell


def shape_panels(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Groups of points that differ only in a square shape, where two numbers of frames meet two sizes.

    table: complete points of one benchmark, from results.add_pooled_shapes.
    """
    square = table[table.pooled_height == table.pooled_width]
    panels = []
    for _, rows in square.groupby([name for name in PANEL if name in square], dropna=False, sort=False):
        sizes = [set(frame.pooled_height) for _, frame in rows.groupby("pooled_frames")]
        if any(len(first & second) > 1 for first, second in combinations(sizes, 2)):
            panels.append(rows)
    return panels


def score_by_shape(panels: Sequence[pd.DataFrame], group: str | None = None) -> Figure:
    """A heat map of the score over (T', H' = W') per panel, from shape_panels, with the 95 % interval in each cell."""
    names, every = list(columns_of(group)[:3]), pd.concat(panels)
    # Colours span the intervals, not the scores alone, and 30 points at least, so that noise looks like noise.
    numbers = 100 * every[names].astype(float)
    limits = span(numbers.min().min(), numbers.max().max())
    widest = max(rows.pooled_height.nunique() for rows in panels)
    tallest = max(rows.pooled_frames.nunique() for rows in panels)
    columns = max(1, min(len(panels), int((WIDTH - 0.1) / (CELL * widest + 0.4))))
    down = -(-len(panels) // columns)
    varied = [name for name in PANEL if PANEL[name] and name in every and every[name].nunique(dropna=False) > 1]
    with drawing(WIDTH, down * (ROW * tallest + 0.55) + 0.45, **{"axes.grid": False}) as figure:
        for number, rows in enumerate(panels):
            axes = figure.add_subplot(down, columns, number + 1)
            _panel(axes, rows, names, limits)
            first = rows.iloc[0]
            parts = [str(first.operator), f"{int(first.frames)} frames sampled"]
            parts += [PANEL[name].format(first[name]) for name in varied if not pd.isna(first[name])]
            if len(panels) > 1:
                axes.set_title((",\n" if columns > 1 else ", ").join(parts))
        mapped = ScalarMappable(Normalize(*limits), MAP)
        bar = figure.colorbar(mapped, ax=figure.axes, label="score, %", aspect=40, location="bottom")
        bar.outline.set_visible(False)
        alone = f" ({', '.join(parts)})" if len(panels) == 1 else ""
        figure.set_label(f"{title_of(every, group)}: score over the shape after pooling{alone}, with {INTERVALS}.")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str], limits: tuple[float, float]) -> None:
    """Draw one heat map; shapes that were not run stay white."""
    cell = ["pooled_frames", "pooled_height"]
    values = 100 * rows.drop_duplicates(cell).set_index(cell)[names].astype(float)
    scores, scale = values[names[0]].unstack(), Normalize(*limits)
    axes.imshow(scores, cmap=MAP, norm=scale, origin="lower", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(range(scores.shape[1]), [f"{size} x {size}" for size in scores.columns])
    axes.set_yticks(range(scores.shape[0]), [str(frames) for frames in scores.index])
    axes.set(xlabel="cells of a frame, H' x W'", ylabel="frames left, T'")
    for row, frames in enumerate(scores.index):
        for column, size in enumerate(scores.columns):
            text, colour = "not run", "grey"
            if not pd.isna(scores.loc[frames, size]):
                score, low, high = values.loc[(frames, size)]
                text = f"{score:.1f}" + ("" if pd.isna(low) else f"\n[{low:.0f}, {high:.0f}]")
                colour = "white" if scale(score) < DARK else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.2)
