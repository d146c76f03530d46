"""Time of a sweep, by the work that its points share."""

from collections.abc import Mapping
from operator import add

from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, WIDTH, drawing, legend

LABELS = {"off": "nothing shared", "cold": "shared,\nempty store", "warm": "shared,\nfull store", "floor": "floor"}
HATCHES = (None, "//", "..", "xx")  # readable in grey, and when colours repeat


def sweep_seconds(seconds: Mapping[str, Mapping[str, float]]) -> Figure:
    """One stacked bar per mode of running the sweep; seconds by mode (off, cold, warm, floor), then by kind of work."""
    modes = [mode for mode in LABELS if mode in seconds]
    kinds = list(dict.fromkeys(kind for mode in modes for kind in seconds[mode]))
    with drawing(WIDTH, 0.7 + 0.3 * len(modes) + 0.14 * -(-len(kinds) // 3)) as figure:
        axes = figure.add_subplot()
        left = [0.0] * len(modes)
        for number, kind in enumerate(kinds):
            own = [seconds[mode].get(kind, 0.0) for mode in modes]
            colour, hatch = COLOURS[number % len(COLOURS)], HATCHES[number % len(HATCHES)]
            axes.barh([LABELS[mode] for mode in modes], own, left=left, color=colour, hatch=hatch, label=kind,
                      edgecolor="white", linewidth=0.3)  # fmt: skip
            left = list(map(add, left, own))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("seconds of the sweep")
        legend(figure, axes.get_legend_handles_labels()[0])
        figure.set_label("Seconds of the sweep by kind of work, from left to right as in the legend.")
    return figure
