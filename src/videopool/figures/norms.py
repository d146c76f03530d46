"""Norms of visual tokens: histograms, maps, profiles over time, attention against norm.

Figures that compare stages have a panel for each; within panels, curves are told apart by one legend.
"""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from videopool.figures.style import COLOURS, MARKERS, STYLE

Histogram = tuple[np.ndarray, np.ndarray]  # counts [N], edges [N + 1]
ALL = "all points"  # the name of a curve that all points share; drawn in grey
ACROSS = 3  # panels in a row
BARS = 60  # steps of a histogram, about; bins are put together for them
REACH = 1.3  # how far beyond the largest norm a marked norm may be to be drawn
LEVEL = 0.01  # a profile's axis reaches at least so far from its mean, so that noise looks like noise
FINE = 200  # ratio of the ends of a histogram's axis of shares, below which 2 and 5 are marked too
FEWEST = 20  # tokens, below which a mean of attention is not drawn
DASHES = ((0, (1, 1)), (0, (4, 2)), (0, (4, 1, 1, 1)), (0, (8, 2)))


def _panels(titles: list[str], draw: Callable[[Axes, str], Any], height: float = 3.6, legend: bool = True) -> Figure:
    """A panel for each title, drawn by `draw`, and one legend for all."""
    columns = min(ACROSS, len(titles))
    rows = -(-len(titles) // columns)
    width = 6.4 if columns == 1 else 4.2 * columns
    with matplotlib.rc_context({**STYLE, "figure.figsize": (width, height * rows + 0.9)}):
        figure = Figure()
        for number, title in enumerate(titles):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.set_title(title)
            draw(axes, title)
        entries: dict[str, Any] = {}
        for axes in figure.axes:
            for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
                entries.setdefault(text, handle)
        if legend and entries:
            figure.legend(entries.values(), list(entries), loc="outside lower center", ncols=min(3, len(entries)))
    return figure


def norm_histograms(
    stages: Mapping[str, Mapping[str, Histogram]],
    p: str,
    lines: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Share of tokens by norm, a panel a stage, a curve a point; shares on a log axis, so that few outliers show.

    Args:
        stages: histograms by stage and by curve; all with the same edges.
        p: of the norm.
        lines: norms to be marked, by stage and by what they are.
    """
    names = _numbered(stages)

    def draw(axes: Axes, stage: str) -> None:
        curves = stages[stage]
        counts = np.sum([counts for counts, _ in curves.values()], axis=0)
        seen = np.flatnonzero(counts)
        if not len(seen):
            axes.text(0.5, 0.5, "no norm above 0", ha="center", transform=axes.transAxes)
            return
        edges = next(iter(curves.values()))[1]
        together = 1 << max(0, int(np.log2((seen[-1] - seen[0] + 1) / BARS)))
        first = seen[0] // together * together
        last = min(len(counts), (seen[-1] // together + 1) * together)
        steps = np.append(edges[first:last:together], edges[last])
        for name, (own, _) in curves.items():
            if own.sum():
                shares = 100 * np.add.reduceat(own[first:last], np.arange(0, last - first, together)) / own.sum()
                colour = _style(names[name])["color"]
                alone = len(curves) == 1  # filled, but light enough for the lines that are drawn over it
                axes.stairs(
                    shares, steps, color=colour, label=name, fill=alone, alpha=0.45 if alone else 0.8, linewidth=1.8
                )
        beyond = []
        for number, (label, place) in enumerate((lines or {}).get(stage, {}).items()):
            colour, dashes = COLOURS[(number + 1) % len(COLOURS)], DASHES[number % len(DASHES)]
            if place <= REACH * steps[-1]:
                axes.axvline(place, label=label, linewidth=1.6, color=colour, linestyle=dashes)
            else:
                beyond.append(f"{label}: {place:.3g}")
        if beyond:  # far from all tokens; a line there would squeeze them
            axes.set_xlabel(f"L{p} norm ({', '.join(beyond)})")
        else:
            axes.set_xlabel(f"L{p} norm")
        axes.set_yscale("log")
        if steps[-1] > 4 * steps[0]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=7))
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel("tokens in a bin, %")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5) if high < FINE * low else (1,), numticks=9))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())

    return _panels(list(stages), draw)


def norm_maps(maps: Mapping[str, np.ndarray], label: str, percent: bool = False) -> Figure:
    """A heat map [H, W] over the positions of a frame, a panel each.

    Args:
        maps: by title; NaN stays white.
        label: what the colours show.
        percent: values are shares, shown in percent; colours then start at 0.
    """

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
    """Mean norm by the position of the frame in the clip, a panel a stage, a curve a point.

    Args:
        stages: [T] mean norms by stage and by curve; drawn over their mean.
    """
    names = _numbered(stages)

    def draw(axes: Axes, stage: str) -> None:
        for name, values in stages[stage].items():
            axes.plot(np.arange(1, len(values) + 1), values / np.nanmean(values), label=name, **_style(names[name]))
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
    """A value of pairs of frames by their distance, a panel a stage, a curve a point.

    Args:
        stages: [D] by stage and by curve, from distance 0 on, which is not shown.
        label: what the values are.
        chance: the same for what chance gives; drawn dotted.
    """
    names = _numbered(stages)

    def draw(axes: Axes, stage: str) -> None:
        for name, values in stages[stage].items():
            places, style = np.arange(1, len(values)), _style(names[name])
            axes.plot(places, values[1:], label=name, **style)
            if chance is not None and np.isfinite(chance[stage][name][1:]).any():
                axes.plot(places, chance[stage][name][1:], color=style["color"], linestyle=":")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("distance, frames" + (" (dotted: by chance)" if chance is not None else ""))
        axes.set_ylabel(label)

    return _panels(list(stages), draw)


def attention_against_norm(layers: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """What a visual token gets of the attention, by its norm. Bins of fewer than 20 tokens are left out.

    Args:
        layers: by name, edges [N + 1] of norms over the clip's median; mean attention [N] there in equal shares
            (1: as much as if all visual tokens got the same); how many tokens [N] are there.
    """

    def draw(axes: Axes, _: str) -> None:
        for number, (name, (edges, values, tokens)) in enumerate(layers.items()):
            places, seen = np.sqrt(edges[1:] * edges[:-1]), tokens >= FEWEST
            axes.plot(places[seen], values[seen], label=name, **_style(number))
        axes.axhline(1, color="grey", linestyle="--", linewidth=1.2)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, (1, 1.5, 2, 3, 5, 7), numticks=9))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("norm / median of its clip")
        axes.set_ylabel("attention, equal share = 1")

    return _panels(["attention from the last prompt position"], draw, height=4.2)


def _numbered(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """A number for each curve, the same in all panels; -1 for a curve that stands for all."""
    names = dict.fromkeys(name for curves in stages.values() for name in curves if name != ALL)
    return {ALL: -1, **{name: number for number, name in enumerate(names)}}


def _style(number: int) -> dict[str, Any]:
    if number < 0:
        return {"color": "#777777", "marker": "o", "markersize": 4}
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
