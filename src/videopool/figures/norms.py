"""Norms of visual tokens: histograms, maps, profiles over time, attention against norm.

Figures have a panel per stage, a curve per point, and one legend. sizes: the numbers of tokens and clips, below a
panel's title. poolings: the pooling of each curve, and so its colour; None: its name.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from videopool.figures.style import BLUE, GREEN, GUIDE, ORANGE, PINK, WIDTH, drawing, legend, looks
from videopool.figures.words import stage_words

Histogram = tuple[np.ndarray, np.ndarray]  # counts [N], edges [N + 1]
Series = Mapping[str, Mapping[str, np.ndarray]]  # by stage and by curve
Lines = Mapping[str, Mapping[str, float | None]]  # norms to mark, by stage and by label
Names = Mapping[str, str]
ALL = "all points"  # the name of a curve that all points share; drawn in grey
ACROSS = 2  # panels in a row
LETTERS = 26  # of a line of a panel's title
BARS = 60  # approximate number of steps of a histogram, by merging bins
REACH = 1.3  # a marked norm is drawn up to this multiple of the largest norm
LEVEL = 0.1  # smallest reach of a profile's axis from the mean, so that noise looks like noise
SPREAD = 0.2  # smallest span of a map's colours, as a share of their middle
FINE = 200  # ratio of the ends of a histogram's axis of shares, below which 2 and 5 are marked too
FEWEST = 20  # tokens, below which a mean of attention is not drawn
MARKS = ((BLUE, (0, (1, 1))), (ORANGE, (0, (4, 2))), (PINK, (0, (4, 1, 1, 1))), (GREEN, (0, (8, 2))))
NO_INTERVALS = "No intervals: a measurement keeps sums over clips, no values of single clips."


def _panels(
    titles: Iterable[str], draw: Callable[[Axes, str], Any], caption: str, sizes: Names | None = None,
    height: float = 1.35, share: bool = True,
) -> Figure:  # fmt: skip
    """A panel for each stage, drawn by `draw`, and one legend for all. share: one y axis for all."""
    titles = list(titles)
    columns = min(ACROSS, len(titles))
    rows = -(-len(titles) // columns)
    with drawing(WIDTH, (height + 0.1 * bool(sizes)) * rows * (1.2 if columns == 1 else 1) + 0.5) as figure:
        entries: dict[str, Any] = {}
        for number, title in enumerate(titles):
            axes = figure.add_subplot(rows, columns, number + 1, sharey=figure.axes[0] if share and number else None)
            parts = [stage_words(title)] * (len(titles) > 1) + ([sizes[title]] if sizes else [])
            axes.set_title("\n".join(fill(part, LETTERS) for part in parts), fontsize=6.5)
            draw(axes, title)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        if set(entries) - {"tokens"}:  # a lone curve of one point needs no name
            legend(figure, list(entries.values()))
        figure.set_label(f"{caption} {NO_INTERVALS}")
    return figure


def _styles(stages: Mapping[str, Iterable[str]], poolings: Names | None) -> dict[str, dict[str, Any]]:
    """Colour and marker of each curve, the same in all panels."""
    own = looks(dict.fromkeys(name for panel in stages.values() for name in panel if name != ALL), poolings)
    return {ALL: {"color": "#777777", "marker": "o", "linestyle": "-"}, **own}


def _plain_ticks(axis: Axis, marks: tuple[float, ...], most: int = 9) -> None:
    """Plain numbers, not powers, at these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(10, marks, numticks=most))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def norm_histograms(
    stages: Mapping[str, Mapping[str, Histogram]], p: str, lines: Lines | None = None, poolings: Names | None = None,
    sizes: Names | None = None,
) -> Figure:  # fmt: skip
    """Share of tokens by Lp norm, one panel per stage, one curve per point; log shares, so that few outliers show.

    All panels have the same bins (of the logarithm of the norm). stages: histograms by stage and by curve, all with the
    same edges. lines: with the same labels in all stages.
    """
    styles = _styles(stages, poolings)
    seen = {stage: np.flatnonzero(sum(counts for counts, _ in curves.values())) for stage, curves in stages.items()}
    lengths = [own[-1] - own[0] + 1 for own in seen.values() if len(own)]
    together = 1 << max(0, int(np.log2(np.mean(lengths or [1]) / BARS)))

    def draw(axes: Axes, stage: str) -> None:
        curves = stages[stage]
        if not len(seen[stage]):
            axes.text(0.5, 0.5, "no norm above 0", ha="center", transform=axes.transAxes)
            return
        edges = next(iter(curves.values()))[1]
        first = seen[stage][0] // together * together
        last = min(len(edges) - 1, (seen[stage][-1] // together + 1) * together)
        steps = np.append(edges[first:last:together], edges[last])
        alone = len(curves) == 1  # filled, but light enough for the lines over it
        for name, (counts, _) in curves.items():
            if counts.sum():
                shares = 100 * np.add.reduceat(counts[first:last], np.arange(0, last - first, together)) / counts.sum()
                style = {key: styles[name][key] for key in ("color", "linestyle")}
                axes.stairs(shares, steps, label=name, fill=alone, alpha=0.45 if alone else 0.9, linewidth=0.9, **style)
        beyond = []
        for (colour, dashes), (label, place) in zip(cycle(MARKS), lines[stage].items() if lines else (), strict=False):
            if place is not None and place <= REACH * steps[-1]:
                axes.axvline(place, label=label, linewidth=0.9, color=colour, linestyle=dashes)
            elif place is not None:  # a line so far from all tokens would squeeze them
                beyond.append(f"{label}: {place:.3g}")
        axes.set(xlabel="\n".join([f"L{p} norm", *beyond]), ylabel="tokens in a bin, %", yscale="log")
        if steps[-1] > 4 * steps[0]:
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis, (1, 2, 5) if steps[-1] < 40 * steps[0] else (1,), most=7)
        else:
            axes.locator_params("x", nbins=4)

    caption = f"Share of visual tokens by L{p} norm, on log axes; bins and shares are the same in all panels."
    figure = _panels(stages, draw, caption, sizes)
    if lengths:
        low, high = figure.axes[0].get_ylim()
        _plain_ticks(figure.axes[0].yaxis, (1, 2, 5) if high < FINE * low else (1,))
    return figure


def norm_maps(maps: Mapping[str, np.ndarray], label: str, percent: bool = False, sizes: Names | None = None) -> Figure:
    """A heat map [H, W] of a frame per panel, by title; NaN stays white. percent: of shares; colours start at 0."""

    def draw(axes: Axes, title: str) -> None:
        values = maps[title] * (100 if percent else 1)
        low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0.0, 1.0)
        spare = max(0.0, SPREAD * abs(high + low) / 2 - (high - low)) / 2
        ends = (0, max(high, 1.0)) if percent else (low - spare, high + spare)
        shown = axes.imshow(values, cmap="cividis", vmin=ends[0], vmax=ends[1], interpolation="nearest")
        axes.grid(visible=False)
        axes.locator_params(nbins=4, integer=True)
        axes.set(xlabel="patch column", ylabel="patch row")
        axes.figure.colorbar(shown, ax=axes, shrink=0.8, label=label, location="bottom", aspect=16)

    caption = f"Over the patches of a frame, mean over frames and clips: {label}."
    return _panels(maps, draw, caption, sizes, height=2.0, share=False)


def _series(
    stages: Series, words: tuple[str, str], ends: tuple[float, float], caption: str, poolings: Names | None,
    sizes: Names | None, chance: Series | None = None,
) -> Figure:  # fmt: skip
    """A curve [N] per point, over 1 .. N: all on one scale, which reaches at least from end to end."""
    styles = _styles(stages, poolings)

    def draw(axes: Axes, stage: str) -> None:
        for name, values in stages[stage].items():
            places = np.arange(1, len(values) + 1)
            axes.plot(places, values, label=name, **styles[name])
            if chance is not None:
                axes.plot(places, chance[stage][name], color=styles[name]["color"], linestyle=":")
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.locator_params("x", nbins=6, integer=True)
        axes.set(xlabel=words[0], ylabel=words[1])

    figure = _panels(stages, draw, caption, sizes)
    low, high = figure.axes[0].get_ylim()
    figure.axes[0].set_ylim(min(low, ends[0]), max(high, ends[1]))
    return figure


def frame_profiles(stages: Series, poolings: Names | None = None, sizes: Names | None = None) -> Figure:
    """Mean norm [T] by the frame's position in the clip, over its mean, one panel per stage, one curve per point."""
    relative = {stage: {name: one / np.nanmean(one) for name, one in own.items()} for stage, own in stages.items()}
    caption = "Mean norm of a frame's tokens over the mean of all frames, by the frame's place, on an axis not from 0."
    return _series(relative, ("frame", "mean norm / its mean"), (1 - LEVEL, 1 + LEVEL), caption, poolings, sizes)


def by_distance(
    stages: Series, label: str, chance: Series | None = None, poolings: Names | None = None,
    sizes: Names | None = None, top: float = 1.0,
) -> Figure:  # fmt: skip
    """A value of pairs of frames by their distance, one panel per stage, one curve per point; all on one scale from 0.

    stages: [D] by stage and by curve, from distance 1 on. chance: the same by chance. top: the axis reaches it.
    """
    dotted = " (dotted: by chance)" if chance is not None else ""
    caption = f"Pairs of frames by their distance: {label}{dotted}."
    return _series(stages, ("distance, frames", label), (0.0, top), caption, poolings, sizes, chance)


def attention_against_norm(
    layers: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    size: str = "",
    what: str = "Attention from the last prompt position to a visual token",
    label: str = "attention",
) -> Figure:
    """Attention to a visual token by its norm, above the numbers of tokens. Bins of fewer than 20 tokens are left out.

    layers: by name, edges [N + 1] of norms over the clip's median, mean attention [N] in equal shares (1: all tokens
    alike), numbers of tokens [N]. size: the number of clips in words, for the caption. what, label: on the first axis.
    """
    styles = looks(layers)
    with drawing(WIDTH, 2.9) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for name, (edges, values, tokens) in layers.items():
            places, seen = np.sqrt(edges[1:] * edges[:-1]), tokens >= FEWEST
            above.plot(places[seen], values[seen], label=name, **styles[name])
            if seen.any():
                kept = slice(np.flatnonzero(seen)[0], np.flatnonzero(seen)[-1] + 1)
                below.stairs(tokens[kept], edges[kept.start : kept.stop + 1], color=BLUE, linewidth=0.8)
        above.axhline(1, **GUIDE)
        above.set(ylim=(0, max(above.get_ylim()[1], 2.0)), ylabel=f"{label},\nequal share = 1")
        below.set(xscale="log", yscale="log", xlabel="norm / median of its clip", ylabel="tokens in\na bin")
        _plain_ticks(below.xaxis, (1, 1.5, 2, 3, 5, 7))
        legend(figure, above.get_legend_handles_labels()[0])
        figure.set_label(
            f"{what}, by its norm; below, the number of tokens in a bin{size}: means of few tokens are noise. "
            f"{NO_INTERVALS}"
        )
    return figure


def birth_layers(panels: Series, layers: Mapping[str, list[str]], poolings: Names | None = None) -> Figure:
    """Share of outliers by the layer of their birth, a panel for tower and language model, a curve per point or rule.

    panels: shares [S] by kind of stage and by curve. layers: names [S] of a kind's layers.
    """
    styles = _styles(panels, poolings)

    def draw(axes: Axes, kind: str) -> None:
        places = np.arange(len(layers[kind]))
        for name, shares in panels[kind].items():
            axes.plot(places, 100 * shares, label=name, **styles[name])
        step = -(-len(places) // 8)
        axes.set_xticks(places[::step], layers[kind][::step])
        axes.set(xlabel="layer of birth", ylabel="outliers, %")

    caption = (
        "Outliers after the last layer drawn, by the layer from which on they were outliers in every layer; in all, "
        "100 % of a curve."
    )
    figure = _panels(panels, draw, caption)
    figure.axes[0].set_ylim(bottom=0)
    return figure


FATES = {"kept": "kept", "merged": "merged with others", "dropped": "dropped"}


def fate_bars(poolings: Mapping[str, Mapping[str, float]], words: str) -> Figure:
    """What poolings do with outliers: shares "kept", "merged", "dropped", and "kept_by_chance", by pooling."""
    names = [fill(name, LETTERS) for name in poolings]
    lines = 1 + max(name.count("\n") for name in names)
    with drawing(WIDTH, 0.9 + 0.1 * (1 + lines) * len(names)) as figure:
        axes, left, places = figure.add_subplot(), np.zeros(len(names)), np.arange(len(names))
        for (fate, label), colour in zip(FATES.items(), (BLUE, ORANGE, "#cccccc"), strict=True):
            shares = np.array([100 * own[fate] for own in poolings.values()])
            axes.barh(places, shares, left=left, height=0.7, label=label, color=colour)
            left += shares
        chance = [100 * own["kept_by_chance"] for own in poolings.values()]
        axes.plot(chance, places, linestyle="", marker="|", color="black", label="kept, by chance")
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=f"patches {words}, %", xlim=(0, 100))
        legend(figure, axes.get_legend_handles_labels()[0])
        figure.set_label(
            f"What becomes of the patches {words} at the tower's feature layer; the mark is the share of all patches "
            f"that is kept, where outliers would be if the pooling did not see them. {NO_INTERVALS}"
        )
    return figure


def crossed_bars(stages: Mapping[str, Mapping[str, float]], words: str) -> Figure:
    """Outliers of tower and language model, two by two: shares "both", "tower", "llm", "both_by_chance" by stage."""
    kinds = {"both": "in both", "tower": "in the tower alone", "llm": "in the language model alone"}
    with drawing(WIDTH, 0.8 + 0.28 * len(stages)) as figure:
        axes, left = figure.add_subplot(), np.zeros(len(stages))
        places = np.arange(len(stages))
        for (kind, label), colour in zip(kinds.items(), (BLUE, ORANGE, GREEN), strict=True):
            shares = np.array([100 * own[kind] for own in stages.values()])
            axes.barh(places, shares, left=left, height=0.7, label=label, color=colour)
            left += shares
        chance = [100 * own["both_by_chance"] for own in stages.values()]
        axes.plot(chance, places, linestyle="", marker="|", color="black", label="in both, by chance")
        axes.set_yticks(places, [fill(stage_words(name), LETTERS) for name in stages])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=f"tokens {words}, %", xlim=(0, None))
        legend(figure, axes.get_legend_handles_labels()[0])
        figure.set_label(
            f"Visual tokens {words} at the tower's feature layer and in the language model. {NO_INTERVALS}"
        )
    return figure
