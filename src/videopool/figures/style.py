"""One look for every figure, and how figures are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from videopool.files import whole

# Okabe and Ito's colour-blind-safe palette (Color Universal Design, 2008), black last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C7A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GUIDE: dict[str, Any] = {"color": "grey", "linestyle": "--", "linewidth": 1.2}  # a line at chance, or at no difference
ACROSS = 3  # panels in a row
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.labelsize": 13,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}


@contextmanager
def drawing(width: float, height: float, **style: Any) -> Iterator[Figure]:
    """A new figure, size in inches; the project's style holds within the block."""
    settings: dict[Any, Any] = {**STYLE, "figure.figsize": (width, height), **style}
    with matplotlib.rc_context(settings):
        yield Figure()


def look(number: int) -> dict[str, Any]:
    """Colour and marker of a curve."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def save_figure(figure: Figure, path: Path) -> list[str]:
    """Save as PNG and SVG side by side. Returns the two names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = []
    for suffix in (".png", ".svg"):
        name = path.parent / (path.name + suffix)
        with whole(name) as part, matplotlib.rc_context({"svg.hashsalt": "videopool"}):  # the same file each time
            figure.savefig(part, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)
        names.append(str(name))
    return names
