"""Scores against frames, visual tokens, LoRA alpha or training data; what figures of scores have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter
from matplotlib.transforms import Bbox, offset_copy

from videopool.figures.style import GUIDE, WIDTH, drawing, legend, legend_size, looks, span
from videopool.figures.words import pooling_words

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
    "model": "{}", "stage": "before the projector", "positions": "{} positions", "layout": "layout {}", "pruning": "{}",
    "prompt": "prompt {}", "judge": "judge {}",
    "lora_alpha": "alpha {:g}", "training_clips": "{:g} training clips", "training_images": "{:g} training images",
    "training_steps": "{:g} steps",
}  # fmt: skip
USUAL = ("projector", "contiguous", "frames")  # stage, positions and layout without words
APART = 4.0  # points between the marks of neighbouring lines at one place
CLUSTER = 16.0  # points, at most, between the outer two of them
DIGIT = 6.0  # points: the size of the numbers beside them
FRONT_STYLE: dict[str, Any] = {"color": "#666666", "linewidth": 0.6, "zorder": 1, "label": "Pareto front"}
INTERVALS = "95 % intervals, clustered by clip"


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
        parts = [
            form.format(row[key]) for key, form in words.items() if not pd.isna(row[key]) and row[key] not in USUAL
        ]
        lines.append(", ".join([str(row["pooling"]), *parts]))
    if "weights" not in table:
        return lines
    # Checkpoints of other seeds share a line; checkpoints of one seed do not.
    named = table.assign(line=lines)
    alike = [name for name in ("line", *AXES, "seed") if name in named]
    several = named.groupby(alike, dropna=False).weights.transform("nunique") > 1
    return list(named.line.where(~several, named.line + ", weights " + named.weights.astype(str)))


def drawn_once(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows to draw, with `twin`, and the lines' names in the figure, by `line`.

    A line whose points all compute the same maps as another line's is left out, and named with that one: "a = b".
    `twin` is true for other points whose map equals that of a point on another line.
    """
    poolings = dict(zip(table.line, table.pooling, strict=True))
    names = {name: pooling_words(own) + name.removeprefix(own) for name, own in poolings.items()}
    if not {"point", "same_map_as"} <= set(table):
        return table.assign(twin=False), names
    other = table.same_map_as.map(dict(zip(table.point, table.line, strict=True)))
    twin = other.notna() & (other != table.line)
    for line in names.copy():
        own = table.line == line
        same = set(other[own])
        if twin[own].all() and len(same) == 1 and (first := same.pop()) in names:
            names[first] += f" = {names.pop(line)}"
    return table.assign(twin=twin)[table.line.isin(names)], names


def pareto_front(
    costs: Sequence[float], scores: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[int]:
    """Places of the points on the Pareto front that differ from one another, by growing cost; none if fewer than two.

    From the cheapest point on (of equally cheap ones the best), a point is on the front if its interval lies above that
    of the front's point before it, which is stricter than a paired comparison. Points without an interval never are.
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -scores[place]))
    front = order[:1]
    for place in order[1:]:
        if costs[place] > costs[front[-1]] and lows[place] > highs[front[-1]]:
            front.append(place)
    return front if len(front) > 1 else []


def score_axis(axes: Axes, along: str, table: pd.DataFrame, columns: Sequence[str]) -> tuple[list[Line2D], str]:
    """Give an axis ("x" or "y") an honest span of percentages, and a line at chance; columns: those of columns_of().

    Returns the line, if chance is known, and words for the caption if the axis does not begin at 0.
    """
    numbers = 100 * table[list(columns)].astype(float)
    level, line = numbers[columns[-1]], axes.axhline if along == "y" else axes.axvline
    drawn = [line(float(level.mean()), label="chance", **GUIDE)] if level.notna().all() else []
    low, high = span(numbers.min().min(), numbers.max().max())
    axes.set(**{f"{along}lim": (low, high), f"{along}label": "score, %"})
    if low == 0:
        return drawn, ""
    turn = 1 if along == "y" else -1
    for place in ((0, 0.015), (0, 0.04)):  # two strokes across the end of the axis
        axes.plot(*place[::turn], marker=[(-1, -0.5)[::turn], (1, 0.5)[::turn]], color="black", linestyle="none",
                  markersize=5, transform=axes.transAxes, clip_on=False, label="_cut")  # fmt: skip
    return drawn, f" The axis of scores begins at {low:g} %."


def error_marks(
    axes: Axes, along: str, rows: pd.DataFrame, columns: Sequence[str], places: Sequence[float], **look: Any
) -> None:
    """A mark with its interval for each row, from shares; the bounds are NaN or None where there is no interval."""
    centre, low, high = (100 * rows[name].astype(float) for name in columns)
    look = {**look, "linestyle": "none", "capsize": 1.5, "elinewidth": 0.8, "clip_on": False}
    look[f"{along}err"] = [centre - low, high - centre]
    axes.errorbar(*((centre, places) if along == "x" else (places, centre)), **look)


def score_against(table: pd.DataFrame, axis: str, group: str | None = None) -> Figure:
    """One line per pooling, and per model, stage, prompt, judge where these vary, with 95 % intervals and chance.

    Points that differ in none of these, such as seeds, are each drawn; the line, and against visual tokens the front
    of pareto_front(), are of their means (with the union of their intervals). Points of equal maps are drawn once.

    table: complete points of one benchmark, from results.load_study. axis: one of AXES. group: of tasks, or None.
    """
    columns = score, low, high, _ = columns_of(group)
    table = table[table[score].notna()]
    table = table.assign(line=line_names(table, axis)).astype(dict.fromkeys((axis, score, low, high), float))
    styles = looks(table.line, dict(zip(table.line, table.pooling, strict=True)))
    caption = f"{title_of(table, group)}: score against {AXES[axis]}, with {INTERVALS}."
    table, names = drawn_once(table)
    by_tokens = axis == "visual_tokens"
    place = [axis, "frames"] if by_tokens else [axis]
    spots = table.groupby(["line", *place], dropna=False, sort=True)
    spots = spots.agg({score: "mean", low: "min", high: "max", "twin": "all"}).reset_index()
    spots[[score, low, high]] *= 100
    last = spots.sort_values(place, kind="stable").groupby("line")[score].last()
    order = sorted(names, key=lambda name: -last[name])  # from top to bottom at the right end
    entries = [*(names[name] for name in order), "chance", *["Pareto front"] * by_tokens]
    with drawing(WIDTH, 2.2 + legend_size(entries)[1]) as figure:
        axes = figure.add_subplot()
        step = min(APART, CLUSTER / len(order))
        # Lines are set apart a little, so that intervals stay readable; their data stay where they are.
        shifts = {name: step * (number - (len(order) - 1) / 2) for number, name in enumerate(order)}
        for name in order:
            style, own = styles[name], spots[spots.line == name].sort_values(place)
            moved = offset_copy(axes.transData, figure, shifts[name], units="points")
            points = table[(table.line == name) & ~table.twin].sort_values(place)
            axes.plot(own[axis], own[score], style["linestyle"], color=style["color"], label="_mean", transform=moved,
                      alpha=0.5 if by_tokens else 1, linewidth=0.7 if by_tokens else None)  # fmt: skip
            error_marks(axes, "y", points, columns[:3], points[axis], label=names[name], transform=moved, **style)
        handles = [Line2D([], [], **styles[name], label=names[name]) for name in order]
        front = pareto_front(*(list(spots[name]) for name in (axis, score, low, high))) if by_tokens else []
        if front:
            ahead = spots.iloc[front]
            ends = [*ahead[axis], spots[axis].max()], [*ahead[score], ahead[score].iloc[-1]]
            handles += axes.step(*ends, where="post", **FRONT_STYLE)
            caption += " Grey: Pareto front of points whose intervals do not overlap."
        _scale(axes, table[axis], axis)
        chance, cut = score_axis(axes, "y", table, columns)
        axes.set_xlabel(AXES[axis])
        legend(figure, [*handles, *chance])
        if by_tokens and table.frames.nunique() > 1:
            axes.set_xlabel(f"{AXES[axis]} (numbers: frames)")
            _number_frames(figure, spots[~spots.twin].dropna(subset="frames"), (axis, score), shifts, styles)
        figure.set_label(caption + cut + " Points of equal maps are drawn once." * bool(table.twin.any()))
    return figure


def _number_frames(
    figure: Figure, spots: pd.DataFrame, columns: tuple[str, str], shifts: Mapping[str, float], styles: Any
) -> None:
    """Write the number of frames beside each spot, in its line's colour, where neither a spot nor a number stands."""
    axes = figure.axes[0]
    figure.draw_without_rendering()  # lays the figure out: places in pixels are known
    places = axes.transData.transform(spots[list(columns)]) * 72 / figure.dpi  # in points
    places[:, 0] += spots.line.map(shifts)
    taken = [Bbox.from_bounds(x - 2.5, y - 2.5, 5, 5) for x, y in places]
    for (x, y), spot in zip(places, spots.to_dict("records"), strict=True):
        text, shift = f"{spot['frames']:g}", shifts[spot["line"]]
        width, height = 0.65 * DIGIT * len(text), 0.8 * DIGIT
        for across, up in ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)):
            right, above = across * (3.5 + width / 2), up * (3.5 + height / 2)
            box = Bbox.from_bounds(x + right - width / 2, y + above - height / 2, width, height)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                place, colour = (spot[columns[0]], spot[columns[1]]), styles[spot["line"]]["color"]
                axes.annotate(text, place, (right + shift, above), textcoords="offset points", color=colour,
                              fontsize=DIGIT, ha="center", va="center")  # fmt: skip
                break


def _scale(axes: Axes, values: "pd.Series[float]", axis: str) -> None:
    """Powers of two, but for alphas; a place left of the smallest for 0 visual tokens of a blind model."""
    above = values[values > 0]
    if axis != "lora_alpha" and len(above) == len(values):
        axes.set_xscale("log", base=2)
    elif axis != "lora_alpha" and len(above):
        axes.set_xscale("symlog", base=2, linthresh=above.min())
    scale = axes.xaxis.get_transform()
    low, high = scale.transform([values.min(), values.max()])
    spare = 0.08 * (high - low) or 1.0
    axes.set_xlim(*scale.inverted().transform([low - spare, high + spare]))
    ticks = sorted(set(values))
    axes.set_xticks(ticks if len(ticks) < 8 else ticks[:: len(ticks) // 6])
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.minorticks_off()
