"""Scores: against frames, visual tokens, LoRA alpha or training data; in rows; against the shape after pooling."""

from collections.abc import Sequence
from itertools import combinations
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from videopool.figures.style import ACROSS, COLOURS, GUIDE, MARKERS, drawing, look

AXES = {
    "frames": "frames",
    "visual_tokens": "visual tokens per clip",
    "lora_alpha": "LoRA alpha at test time",
    "training_clips": "training clips",
}
# Axes of studies of just these, instead of frames and visual tokens.
OWN_AXES = ("lora_alpha", "training_clips")
# Columns that tell lines apart besides the pooling, where they vary, and their words in a legend.
LEGEND = {
    "model": "{}",
    "stage": "before the projector",
    "prompt": "prompt {}",
    "judge": "judge {}",
    "lora_alpha": "alpha {:g}",
    "training_clips": "{:g} training clips",
    "training_images": "{:g} training images",
    "training_steps": "{:g} steps",
}
USUAL = "projector"  # the stage without words
LONG = 22  # letters of a line's name, above which three do not fit side by side
CLOSE = 0.08  # difference of two scores whose labels would meet
WIDTH, WIDE = 38, 46  # letters in a line of a row's name: of differences, of ranked scores
APART = 0.2  # rows, between the marks of one name
# Points share a panel only if nothing but the shape differs. By column, its words in a panel's title; "": none.
PANEL = {
    "model": "{}",
    "stage": "at the {}",
    "lora_alpha": "alpha {:g}",
    "seed": "seed {:g}",
    "judge": "judge {}",
    "prompt": "prompt {}",
    "operator": "",
    "frames": "",
}
MAP = "cividis"
DARK = 0.5  # share of the colours' range below which text is white
FRONT_STYLE: dict[str, Any] = {
    "color": "#444444", "linewidth": 4, "alpha": 0.3, "zorder": 1, "solid_joinstyle": "miter", "label": "Pareto front",
}  # fmt: skip


def columns_of(group: str | None) -> tuple[str, str, str, str]:
    """Columns of a group of tasks (None: the headline): score, its bounds, chance."""
    tail = f"_{group}" if group else ""
    return f"score{tail}", f"ci_low{tail}", f"ci_high{tail}", f"chance{tail}"


def _plain_models(table: pd.DataFrame) -> "pd.Series[str]":
    """Names of models without their LoRA alpha."""
    return table.model.str.replace(r" alpha \S+", "", regex=True)


def title_of(table: pd.DataFrame, group: str | None) -> str:
    """Model, if all points share one, benchmark, and group of tasks."""
    models = set(table.model) if table.model.nunique() == 1 else set(_plain_models(table))
    model = f"{models.pop()} on " if len(models) == 1 else ""
    return f"{model}{table.benchmark.iloc[0]}" + (f", {group} tasks" if group else "")


def line_names(table: pd.DataFrame, axis: str) -> list[str]:
    """The name of each point's line."""
    if axis == "lora_alpha":
        table = table.assign(model=_plain_models(table))
    # An untrained point says so by its model's name; a model's name includes its alpha.
    counted = {name: not name.startswith("train") for name in LEGEND if name in table and name != axis}
    varied = [name for name, absent in counted.items() if table[name].nunique(dropna=not absent) > 1]
    words = {name: LEGEND[name] for name in varied if name != "lora_alpha" or "model" not in varied}
    if axis in OWN_AXES and table.frames.nunique() > 1:
        words = {"frames": "{:g} frames", **words}
    lines = []
    for row in table.to_dict("records"):
        parts = [form.format(row[key]) for key, form in words.items() if not pd.isna(row[key]) and row[key] != USUAL]
        lines.append(", ".join([str(row["pooling"]), *parts]))
    if "weights" not in table:
        return lines
    # Checkpoints of other seeds share a line; checkpoints of one seed do not.
    named = table.assign(line=lines)
    alike = [name for name in ("line", *AXES, "seed") if name in named]
    several = named.groupby(alike, dropna=False).weights.transform("nunique") > 1
    return list(named.line.where(~several, named.line + ", weights " + named.weights.astype(str)))


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Places of the points on the Pareto front, by growing cost.

    A point is on it if no other costs at most as much and scores at least as well, one of the two strictly. Points that
    are equal in both are all on it.
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -scores[place]))
    front: list[int] = []
    for place in order:
        equal = front and (costs[place], scores[place]) == (costs[front[-1]], scores[front[-1]])
        if not front or equal or scores[place] > scores[front[-1]]:
            front.append(place)
    return front


def score_against(table: pd.DataFrame, axis: str, group: str | None = None) -> Figure:
    """One line per pooling, and per model, stage, prompt, judge where these vary, with 95 % intervals and chance.

    Points that differ in none of these, such as seeds, are each drawn, and the line runs through their mean. Against
    visual tokens there is the Pareto front of the scores or their means; points whose intervals overlap may change
    places on it.

    table: complete points of one benchmark, from results.load_study. axis: one of AXES. group: of tasks; None: the
    headline.
    """
    score, low, high, chance = columns_of(group)
    table = table[table[score].notna()]
    table = table.assign(line=line_names(table, axis)).astype(dict.fromkeys((axis, score, low, high), float))
    names = list(dict.fromkeys(table.line))
    by_tokens = axis == "visual_tokens"
    path, place = (":", [axis, "frames"]) if by_tokens else ("-", [axis])
    # Points at the same place are set apart a little, so that intervals stay readable.
    apart = min(0.02, 0.12 / len(names))
    shifts = {name: 1.0 + apart * (number - (len(names) - 1) / 2) for number, name in enumerate(names)}
    means = table.groupby(["line", *place], dropna=False)[score].mean().mul(100).reset_index()
    spots = pd.concat([means[means.line == name] for name in names])
    spots["x"] = spots[axis] * spots.line.map(shifts)
    numbered = by_tokens and table.frames.nunique() > 1
    with drawing(6.4, 5.0) as figure:
        axes = figure.add_subplot()
        for number, name in enumerate(names):
            rows, own = table[table.line == name].sort_values(place), spots[spots.line == name]
            single, colour = len(rows) == len(own), COLOURS[number % len(COLOURS)]
            axes.errorbar(
                rows[axis] * shifts[name],
                100 * rows[score],
                yerr=[100 * (rows[score] - rows[low]), 100 * (rows[high] - rows[score])],
                label=name,
                color=colour,
                marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],  # another one when colours repeat
                linestyle=path if single else "none",
                capsize=2.5,
                elinewidth=1.2,
            )
            if not single:
                axes.plot(own.x, own[score], path, color=colour, label="_mean")
            if numbered and own[axis].is_unique and own.frames.notna().all():
                _number_frames(axes, own, spots, score)
        if by_tokens:
            front = spots.iloc[pareto_front(list(spots[axis]), list(spots[score]))]
            axes.step([*front.x, spots.x.max()], [*front[score], front[score].iloc[-1]], where="post", **FRONT_STYLE)
        if table[chance].notna().all():
            axes.axhline(100 * float(table[chance].mean()), label="chance", **GUIDE)
        _scale(axes, table[axis], axis)
        axes.set_xlabel(AXES[axis] + (" (numbers: frames)" if numbered else ""))
        axes.set_ylabel("score, % (95 % interval)")
        axes.set_title(title_of(table, group))
        widest = max(map(len, names))
        figure.legend(loc="outside lower center", ncols=3 if widest < LONG else 2 if widest < 2 * LONG else 1)
    return figure


def _number_frames(axes: Axes, own: pd.DataFrame, spots: pd.DataFrame, score: str) -> None:
    """Write the number of frames beside each spot of a line."""
    for spot in own.to_dict("records"):
        # Just below a point with as many tokens the number goes to the other side, clear of that point's number.
        above = (spots[score][spots.visual_tokens == spot["visual_tokens"]].max() - spot[score]) / 100
        side, offset = ("right", (-5, -10)) if 0 < above < CLOSE else ("left", (4, 4))
        at = (spot["x"], spot[score])
        axes.annotate(f"{int(spot['frames'])}", at, offset, textcoords="offset points", fontsize=8, ha=side)


def _scale(axes: Axes, values: "pd.Series[float]", axis: str) -> None:
    """Powers of two, but for alphas; a place left of the smallest for 0 visual tokens of a blind model."""
    above = values[values > 0]
    if axis != "lora_alpha" and not above.empty:
        if len(above) == len(values):
            axes.set_xscale("log", base=2)
        else:
            axes.set_xscale("symlog", base=2, linthresh=above.min())
    ticks = sorted(set(values))
    axes.set_xticks(ticks if len(ticks) < 8 else ticks[:: len(ticks) // 6])
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.minorticks_off()


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


def shape_panels(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Groups of points that differ only in a square shape, one for each panel of score_by_shape.

    table: complete points of one benchmark, from results.add_pooled_shapes. In each group two numbers of frames meet
    two sizes, so that both directions can be seen.
    """
    square = table[table.pooled_height == table.pooled_width]
    groups = square.groupby([name for name in PANEL if name in square], dropna=False, sort=False)
    panels = []
    for _, rows in groups:
        sizes = [set(frame.pooled_height) for _, frame in rows.groupby("pooled_frames")]
        if any(len(first & second) > 1 for first, second in combinations(sizes, 2)):
            panels.append(rows)
    return panels


def score_by_shape(panels: Sequence[pd.DataFrame], group: str | None = None) -> Figure:
    """A heat map of the score over (T', H' = W') per panel, from shape_panels, with the 95 % interval in each cell."""
    names, every = list(columns_of(group)[:3]), pd.concat(panels)
    # Colours span the intervals, not the scores alone, so that noise looks like noise.
    span = 100 * every[names].astype(float).to_numpy()
    limits = (float(np.nanmin(span)), float(np.nanmax(span)))
    widest = max(rows.pooled_height.nunique() for rows in panels)
    tallest = max(rows.pooled_frames.nunique() for rows in panels)
    columns = min(ACROSS, len(panels))
    down = -(-len(panels) // columns)
    width, height = max(5.4, columns * (1.2 * widest + 0.9) + 1.4), down * (0.72 * tallest + 1.1) + 0.8
    varied = [
        name for name, words in PANEL.items() if words and name in every and every[name].nunique(dropna=False) > 1
    ]
    with drawing(width, height, **{"axes.grid": False}) as figure:
        for number, rows in enumerate(panels):
            axes = figure.add_subplot(down, columns, number + 1)
            _panel(axes, rows, names, limits)
            first = rows.iloc[0]
            parts = [str(first.operator), f"{int(first.frames)} frames sampled"]
            parts += [PANEL[name].format(first[name]) for name in varied if not pd.isna(first[name])]
            axes.set_title(", ".join(parts), fontsize=11)
        bar = figure.colorbar(ScalarMappable(Normalize(*limits), MAP), ax=figure.axes, label="score, %", aspect=30)
        bar.outline.set_visible(False)
        first = panels[0].iloc[0]
        title = str(first.benchmark) if "model" in varied else f"{first.model} on {first.benchmark}"
        figure.suptitle(title + (f", {group} tasks" if group else ""), fontsize=13)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str], limits: tuple[float, float]) -> None:
    """Draw one heat map; shapes that were not run stay white."""
    cell = ["pooled_frames", "pooled_height"]
    values = 100 * rows.drop_duplicates(cell).set_index(cell)[names].astype(float)
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
            text, colour = "not run", "grey"
            if not pd.isna(scores.loc[frames, size]):
                score, low, high = values.loc[(frames, size)]
                text = f"{score:.1f}" + ("" if pd.isna(low) else f"\n[{low:.1f}, {high:.1f}]")
                colour = "white" if (score - limits[0]) / spread < DARK else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
