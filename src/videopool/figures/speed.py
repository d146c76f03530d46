"""Time of a sweep, by the work that its points share."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, drawing

LABELS = {"off": "nothing shared", "cold": "shared, empty store", "warm": "shared, full store", "floor": "floor"}


def sweep_seconds(seconds: Mapping[str, Mapping[str, float]]) -> Figure:
    """One stacked bar per mode of running the sweep; seconds by mode (off, cold, warm, floor), then by kind of work."""
    modes = [mode for mode in LABELS if mode in seconds]
    kinds = list(dict.fromkeys(kind for mode in modes for kind in seconds[mode]))
    with drawing(6.4, 0.9 + 0.75 * len(modes) + 0.3 * len(kinds) / 3) as figure:
        axes = figure.add_subplot()
        left = [0.0] * len(modes)
        for number, kind in enumerate(kinds):
            own = [seconds[mode].get(kind, 0.0) for mode in modes]
            hatch = "//" if number >= len(COLOURS) else None  # colours repeat
            colour = COLOURS[number % len(COLOURS)]
            axes.barh([LABELS[mode] for mode in modes], own, left=left, color=colour, hatch=hatch, label=kind)
            left = [before + width for before, width in zip(left, own, strict=True)]
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("seconds of the sweep")
        figure.legend(loc="outside lower center", ncols=4)
    return figure
