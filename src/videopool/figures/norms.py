"""Norms of visual tokens: histograms, maps, profiles over time, attention against norm.

Figures that compare stages have one panel per stage, one curve per point, and one legend.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from videopool.figures.style import ACROSS, COLOURS, GUIDE, drawing, look

Histogram = tuple[np.ndarray, np.ndarray]  # counts [N], edges [N + 1]
ALL = "all points"  # the name of a curve that all points share; drawn in grey
BARS = 60  # approximate number of steps of a histogram, by merging bins
REACH = 1.3  # a marked norm is drawn up to this multiple of the largest norm
LEVEL = 0.01  # smallest reach of a profile's axis from the mean, so that noise looks like noise
FINE = 200  # ratio of the ends of a histogram's axis of shares, below which 2 and 5 are marked too
FEWEST = 20  # tokens, below which a mean of attention is not drawn
DASHES = ((0, (1, 1)), (0, (4, 2)), (0, (4, 1, 1, 1)), (0, (8, 2)))


def _panels(titles: list[str], draw: Callable[[Axes, str], Any], height: float = 3.6, legend: bool = True) -> Figure:
    """A panel for each title, drawn by `draw`, and one legend for all."""
    columns = min(ACROSS, len(titles))
    rows = -(-len(titles) // columns)
    with drawing(6.4 if columns == 1 else 4.2 * columns, height * rows + 0.9) as figure:
        entries: dict[str, Any] = {}
        for number, title in enumerate(titles):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.set_title(title)
            draw(axes, title)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        if legend and entries:
            figure.legend(entries.values(), list(entries), loc="outside lower center", ncols=min(3, len(entries)))
    return figure


def _styles(*curves: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each curve, the same in all panels."""
    names = dict.fromkeys(name for panel in curves for name in panel if name != ALL)
    styles = {ALL: {"color": "#777777", "marker": "o"}, **{name: look(number) for number, name in enumerate(names)}}
    return {name: {**style, "markersize": 4} for name, style in styles.items()}


def _plain_ticks(axis: Axis, marks: tuple[float, ...], most: int = 9) -> None:
    """Plain numbers, not powers, at these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(10, marks, numticks=most))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def norm_histograms(
    stages: Mapping[str, Mapping[str, Histogram]], p: str, lines: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """Share of tokens by Lp norm, one panel per stage, one curve per point; log shares, so that few outliers show.

    stages: histograms by stage and by curve, all with the same edges. lines: norms to mark, by stage and by label.
    """
    styles = _styles(*stages.values())

    def draw(axes: Axes, stage: str) -> None:
        curves = stages[stage]
        seen = np.flatnonzero(np.sum([counts for counts, _ in curves.values()], axis=0))
        if not len(seen):
            axes.text(0.5, 0.5, "no norm above 0", ha="center", transform=axes.transAxes)
            return
        edges = next(iter(curves.values()))[1]
        together = 1 << max(0, int(np.log2((seen[-1] - seen[0] + 1) / BARS)))
        first = seen[0] // together * together
        last = min(len(edges) - 1, (seen[-1] // together + 1) * together)
        steps = np.append(edges[first:last:together], edges[last])
        alone = len(curves) == 1  # filled, but light enough for the lines over it
        for name, (counts, _) in curves.items():
            if counts.sum():
                shares = 100 * np.add.reduceat(counts[first:last], np.arange(0, last - first, together)) / counts.sum()
                colour, alpha = styles[name]["color"], 0.45 if alone else 0.8
                axes.stairs(shares, steps, color=colour, label=name, fill=alone, alpha=alpha, linewidth=1.8)
        beyond = []
        for number, (label, place) in enumerate((lines or {}).get(stage, {}).items()):
            colour, dashes = COLOURS[(number + 1) % len(COLOURS)], DASHES[number % len(DASHES)]
            if place <= REACH * steps[-1]:
                axes.axvline(place, label=label, linewidth=1.6, color=colour, linestyle=dashes)
            else:  # a line so far from all tokens would squeeze them
                beyond.append(f"{label}: {place:.3g}")
        axes.set_xlabel(f"L{p} norm" + (f" ({', '.join(beyond)})" if beyond else ""))
        axes.set_yscale("log")
        if steps[-1] > 4 * steps[0]:
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis, (1, 2, 5), most=7)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel("tokens in a bin, %")
        low, high = axes.get_ylim()
        _plain_ticks(axes.yaxis, (1, 2, 5) if high < FINE * low else (1,))

    return _panels(list(stages), draw)


def norm_maps(maps: Mapping[str, np.ndarray], label: str, percent: bool = False) -> Figure:
    """A heat map [H, W] of a frame per panel, by title; NaN stays white. percent: of shares; colours start at 0."""

    def draw(axes: Axes, title: str) -> None:
        values = maps[title] * (100 if percent else 1)
        shown = axes.imshow(values, cmap="cividis", vmin=0 if percent else None, interpolation="nearest")
        axes.grid(visible=False)
        for side in (axes.xaxis, axes.yaxis):
            side.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("patch column")
        axes.set_ylabel("patch row")
        axes.figure.colorbar(shown, ax=axes, shrink=0.75, label=label)

    return _panels(list(maps), draw, legend=False)


def frame_profiles(stages: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Mean norm [T] by the frame's position in the clip, over its mean, one panel per stage, one curve per point."""
    styles = _styles(*stages.values())

    def draw(axes: Axes, stage: str) -> None:
        for name, values in stages[stage].items():
            axes.plot(np.arange(1, len(values) + 1), values / np.nanmean(values), label=name, **styles[name])
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 1 - LEVEL), max(high, 1 + LEVEL))
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("frame")
        axes.set_ylabel("mean norm / its mean")

    return _panels(list(stages), draw)


def by_distance(
    stages: Mapping[str, Mapping[str, np.ndarray]],
    label: str,
    chance: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Figure:
    """A value of pairs of frames by their distance, one panel per stage, one curve per point.

    stages: [D] by stage and by curve, from distance 0 on, which is not shown. chance: the same by chance; dotted.
    """
    styles = _styles(*stages.values())

    def draw(axes: Axes, stage: str) -> None:
        for name, values in stages[stage].items():
            places = np.arange(1, len(values))
            axes.plot(places, values[1:], label=name, **styles[name])
            if chance is not None and np.isfinite(chance[stage][name][1:]).any():
                axes.plot(places, chance[stage][name][1:], color=styles[name]["color"], linestyle=":")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("distance, frames" + (" (dotted: by chance)" if chance is not None else ""))
        axes.set_ylabel(label)

    return _panels(list(stages), draw)


def attention_against_norm(layers: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Attention to a visual token by its norm. Bins of fewer than 20 tokens are left out.

    layers: by name, edges [N + 1] of norms over the clip's median, mean attention [N] in equal shares (1: as if all
    visual tokens got the same), numbers of tokens [N].
    """
    styles = _styles(layers)

    def draw(axes: Axes, _: str) -> None:
        for name, (edges, values, tokens) in layers.items():
            places, seen = np.sqrt(edges[1:] * edges[:-1]), tokens >= FEWEST
            axes.plot(places[seen], values[seen], label=name, **styles[name])
        axes.axhline(1, **GUIDE)
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis, (1, 1.5, 2, 3, 5, 7))
        axes.set_xlabel("norm / median of its clip")
        axes.set_ylabel("attention, equal share = 1")

    return _panels(["attention from the last prompt position"], draw, height=4.2)
