"""Where the time of a sweep goes, by what its points share."""

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, STYLE

LABELS = {
    "off": "nothing shared",
    "cold": "shared, empty store",
    "warm": "shared, full store",
    "floor": "floor",
}
HATCHED = len(COLOURS)  # kinds beyond the palette repeat its colours with hatching


def sweep_seconds(seconds: Mapping[str, Mapping[str, float]]) -> Figure:
    """One stacked bar a way of running the sweep.

    Args:
        seconds: by way (off, cold, warm, floor), then by kind of work.
    """
    ways = [way for way in LABELS if way in seconds]
    kinds = list(dict.fromkeys(kind for way in ways for kind in seconds[way]))
    with matplotlib.rc_context({**STYLE, "figure.figsize": (6.4, 0.9 + 0.75 * len(ways) + 0.3 * len(kinds) / 3)}):
        figure = Figure()
        axes = figure.add_subplot()
        for number, kind in enumerate(kinds):
            left = [sum(seconds[way].get(k, 0.0) for k in kinds[:number]) for way in ways]
            axes.barh(
                [LABELS[way] for way in ways],
                [seconds[way].get(kind, 0.0) for way in ways],
                left=left,
                color=COLOURS[number % len(COLOURS)],
                hatch="//" if number >= HATCHED else None,
                label=kind,
            )
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("seconds of the sweep")
        figure.legend(loc="outside lower center", ncols=4)
    return figure
