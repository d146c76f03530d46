"""One look for every figure, the looks of poolings and frame counts, and how figures are saved.

Figures are 8 cm wide, or twice that with letters twice as large. Their label (`get_label`) is the caption.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from math import ceil, floor, log2
from pathlib import Path
from textwrap import fill
from typing import Any
from zlib import crc32

import matplotlib

matplotlib.use("Agg")

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from videopool.errors import UserError
from videopool.files import whole

WIDTH = 3.15  # inches: 8 cm
# Okabe and Ito's colour-blind-safe palette (Color Universal Design, 2008), with olive instead of its pale yellow.
BLACK, BLUE, ORANGE, GREEN, PINK = "#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7"
COLOURS = (BLUE, "#D55E00", GREEN, PINK, ORANGE, "#56B4E9", "#8C7A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FIXED = {  # colours and markers of poolings that most studies share
    "none": (BLACK, "o"),
    "adaptive 16x12x12": (BLUE, "*"),
    "adaptive Tx6x6": ("#D55E00", "s"),
    "adaptive 4x6x6": (GREEN, "^"),
    "adaptive Tx3x3": (PINK, "D"),
    "average time": (ORANGE, "v"),
    "adaptive 1x6x6": ("#56B4E9", "P"),
}
# Lines of one pooling: as far as there are enough of these, they share its colour and marker.
VARIANTS: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "fillstyle": "full"},
    {"linestyle": "--", "fillstyle": "none"},
    {"linestyle": "-.", "fillstyle": "left"},
    {"linestyle": ":", "fillstyle": "bottom"},
)
MOST_FRAMES = 64  # the light end of the colours of frame counts
GUIDE: dict[str, Any] = {"color": "grey", "linestyle": "--", "linewidth": 0.8}  # a line at chance, or at no difference
LINE, LETTERS = 0.13, 50  # inches, and letters, of a line of a legend
LEAST, ROUND = 30.0, 5.0  # percentage points: the smallest span of an axis of scores, and the steps of its ends
WHOLE = 60.0  # span of scores above which their axis is whole, 0 to 100
STYLE: dict[Any, Any] = {
    "figure.dpi": 300, "svg.hashsalt": "videopool", "pdf.fonttype": 42, "figure.constrained_layout.use": True,
    **dict.fromkeys(("figure.constrained_layout.h_pad", "figure.constrained_layout.w_pad"), 0.02),
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 7),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"), 6.5),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.labelpad": 2, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5, "hatch.linewidth": 0.5,
    "lines.linewidth": 1.0, "lines.markersize": 3.5, "lines.markeredgewidth": 0.7,
    "legend.labelspacing": 0.3, "legend.columnspacing": 1.2, "legend.handlelength": 1.8,
}  # fmt: skip
# Without dates and versions, so that a second report writes equal files.
METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextmanager
def drawing(width: float, height: float, **style: Any) -> Iterator[Figure]:
    """A new figure, size in inches; the project's style holds within the block."""
    settings: dict[Any, Any] = {**STYLE, "figure.figsize": (width, height), **style}
    with matplotlib.rc_context(settings):
        yield Figure()


def looks(names: Iterable[str], poolings: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Colour, marker, line and fill of each curve, by name. poolings: that of a curve, where it is not its name.

    A pooling in FIXED always has the same colour and marker. Any other has those that its name draws, or, if another
    one of these curves has them, the next that are least used. Curves of one pooling share both and differ in line
    and fill, equally for all poolings; if they are too many, or there is no other pooling, each has its own colour.
    """
    curves = {name: (poolings or {}).get(name, name) for name in names}
    own: dict[str, list[str]] = {}  # by pooling
    for name, pooling in curves.items():
        own.setdefault(pooling, []).append(name)
    # What a name says besides its pooling; if it says that otherwise, its place among the curves of its pooling.
    rests = {n: n.removeprefix(p) if n.startswith(p) else own[p].index(n) for n, p in curves.items()}
    variants = list(dict.fromkeys(rests.values()))
    if len(variants) > len(VARIANTS) or 1 == len(own) < len(curves):
        curves, variants, rests = {name: name for name in curves}, [0], dict.fromkeys(curves, 0)
    chosen = {pooling: FIXED[pooling] for pooling in curves.values() if pooling in FIXED}
    every = [(colour, marker) for marker in MARKERS for colour in COLOURS]
    for pooling in sorted(set(curves.values()) - chosen.keys()):
        start, used = crc32(pooling.encode()) % len(every), Counter(chain(*chosen.values()))
        turned = every[start:] + every[:start]
        free = [look for look in turned if look not in chosen.values()] or turned
        chosen[pooling] = min(free, key=lambda look: (used[look[0]], used[look[1]]))
    return {
        name: {"color": chosen[pooling][0], "marker": chosen[pooling][1], **VARIANTS[variants.index(rests[name])]}
        for name, pooling in curves.items()
    }


def frames_look(frames: float) -> dict[str, Any]:
    """Colour and marker of a number of frames, from dark to light by its logarithm: the same in all figures."""
    steps = log2(max(1.0, float(frames)))
    share = min(1.0, steps / log2(MOST_FRAMES))
    return {"color": to_hex(matplotlib.colormaps["viridis"](0.9 * share)), "marker": MARKERS[round(steps) % 8]}


def span(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis of percentages that hold both numbers: whole if they are far apart, else LEAST apart or more."""
    if high - low > WHOLE:
        return 0.0, 100.0
    spare = max(0.0, LEAST - (high - low)) / 2
    low, high = ROUND * floor((low - spare) / ROUND), ROUND * ceil((high + spare) / ROUND)
    moved = max(0.0, -low) - max(0.0, high - 100)  # into 0..100
    return max(0.0, low + moved), min(100.0, high + moved)


def legend_size(names: Sequence[str]) -> tuple[int, float]:
    """Columns of a legend below a figure, and its height in inches."""
    columns = next((count for count in (3, 2) if max(map(len, names)) <= 54 // count - 4), 1)
    lines = [fill(name, LETTERS).count("\n") + 1 for name in names]
    return columns, LINE * (sum(lines) if columns == 1 else -(-len(lines) // columns))


def legend(figure: Figure, handles: Sequence[Any], title: str | None = None) -> None:
    """A legend below the panels, of handles with labels."""
    names = [str(handle.get_label()) for handle in handles]
    columns = 6 if title else legend_size(names)[0]
    names = [fill(name, LETTERS) for name in names]
    figure.legend(handles, names, title=title, loc="outside lower center", ncols=columns)


def formats() -> list[str]:
    """The formats of figures: "png", "svg", "pdf", or those of them that VIDEOPOOL_FIGURES names; [] for "none".

    Raises UserError for a format that is none of these.
    """
    wanted = os.environ.get("VIDEOPOOL_FIGURES", "png,svg,pdf").split(",")
    if wanted == ["none"]:
        return []
    if others := {f".{word}" for word in wanted} - set(METADATA):
        raise UserError(f"VIDEOPOOL_FIGURES: {', '.join(sorted(others))}: figures are PNG, SVG and PDF")
    return wanted


def save_figure(figure: Figure, path: Path) -> list[str]:
    """Save as PNG, SVG and PDF side by side, or in those of them that VIDEOPOOL_FIGURES names. Returns the names.

    Reports need the SVG, so it is saved in any case. Raises UserError for a format that is none of these.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names, wanted = [], formats()
    for suffix, metadata in METADATA.items():
        if suffix[1:] not in (*wanted, "svg"):
            continue
        name = path.parent / (path.name + suffix)
        # Some settings count when a figure is saved, not when it is drawn.
        with whole(name) as part, matplotlib.rc_context({key: STYLE[key] for key in ("svg.hashsalt", "pdf.fonttype")}):
            figure.savefig(part, format=suffix[1:], metadata=metadata)
        figure.set_layout_engine("none")  # all formats have the places of the first
        names.append(str(name))
    return names
