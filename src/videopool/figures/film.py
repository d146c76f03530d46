"""A clip as a strip of frames, above pictures of the model's features: still, and animated.

Shapes: frames [T, S, S, 3] in 0..1; a picture is [h, w, 3] of colours or [h, w] of numbers, with NaN for gaps.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from videopool.figures.style import WIDTH, drawing
from videopool.files import whole

STRIP = 2 * WIDTH  # inches: printed 8 cm wide, letters of SIZE points have half as many
SIZE, LETTERS = 12.5, 62  # of text, and letters in a line of a row's label
LINE, GAP, TALLEST, BAR = 0.2, 0.06, 1.2, 0.65  # inches: of text, between pictures, of a picture at most, of a scale
CAPTION = 0.55  # inches that a time needs
OUTLINED = 12  # cells in a row, above which outlines would hide them
VEIL = 0.65  # opacity of a map laid over a frame
PANEL, PANELS = 2.0, 4  # inches of a panel of the animation, panels in a row
SECONDS = 0.5  # per frame of the animation
MAP = "cividis"
DOT: dict[str, Any] = {"ls": "", "marker": "o", "ms": 2.2, "mfc": "white", "mec": "black", "mew": 0.5}


@dataclass(frozen=True)
class FilmRow:
    """A row below the frames of a clip: its label, pictures in order, captions below them or none, marked cells.

    unit: of numbers, for their colour bar. over: lay pictures of numbers over the frames, one per frame. limits: of the
    colours of numbers; None: their range.
    """

    label: str
    pictures: Sequence[np.ndarray]
    captions: Sequence[str] = ()
    unit: str = ""
    over: bool = False
    limits: tuple[float, float] | None = None
    marks: Sequence[np.ndarray] = ()  # true [h, w] for cells with a dot, one per picture, or none

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        numbers = np.stack(self.pictures)
        return float(np.nanmin(numbers)), float(np.nanmax(numbers))

    @property
    def scale(self) -> Normalize | None:
        """From numbers to colours; None for a row of colours."""
        return None if self.pictures[0].ndim == 3 else Normalize(*(self.limits or self.range))


def on_one_scale(rows: Sequence[FilmRow]) -> list[FilmRow]:
    """Rows of numbers with the same colours for the same numbers."""
    lows, highs = zip(*(row.range for row in rows), strict=True)
    return [replace(row, limits=(min(lows), max(highs))) for row in rows]


def spread(count: int, columns: int) -> list[int]:
    """At most `columns` of `count` places, evenly spread: the middles of equal segments."""
    shown = min(count, columns)
    return [(2 * k + 1) * count // (2 * shown) for k in range(shown)]


def film_strip(
    frames: np.ndarray, times: Sequence[float], rows: Sequence[FilmRow], title: str, note: str = "", columns: int = 8
) -> Figure:
    """Frames [T, S, S, 3] side by side with their `times` [T] in seconds, and the rows of pictures below.

    At most `columns` frames, and pictures of a row, are shown, evenly spread. The caption is the title and the note.
    """
    shown = min(len(frames), columns)
    stamps = [seconds(time, max(times)) for time in times]
    rows = [FilmRow("frames, and their times in the clip", list(frames), stamps), *rows]
    strip = min(STRIP - (BAR if any(row.scale for row in rows) else 0.0), TALLEST * shown)
    side = strip / shown - GAP
    labels = [_wrapped(row.label.replace("\n", ", ") + f" ({row.unit})" * bool(row.unit), LETTERS) for row in rows]
    above = [LINE * (label.count("\n") + 1) + 0.03 for label in labels]
    height = sum(above) + sum(side + LINE * bool(row.captions) + 0.07 for row in rows) + 0.05
    with drawing(STRIP, height, **{"figure.constrained_layout.use": False, "font.size": SIZE}) as figure:

        def place(left: float, wide: float) -> Axes:
            return figure.add_axes((left / STRIP, 1 - (top + side) / height, wide / STRIP, side / height))

        top = 0.05  # inches, as all places here
        for row, label, letters in zip(rows, labels, above, strict=True):
            figure.text(0, 1 - top / height, label, fontsize=SIZE, va="top")
            top += letters
            chosen, scale = spread(len(row.pictures), columns), row.scale
            told = max(1, round(CAPTION / (strip / len(chosen)) + 0.49))  # of so many captions one has room
            for position, number in enumerate(chosen):
                axes = place(strip * (position + 0.5) / len(chosen) - side / 2, side)
                _picture(axes, row, number, frames[number] if row.over else None)
                if row.captions and position % told == 0:
                    axes.set_xlabel(row.captions[number], fontsize=SIZE, labelpad=2)
            if scale is not None:
                bar = figure.colorbar(ScalarMappable(scale, MAP), cax=place(strip + 0.05, 0.1), ticks=MaxNLocator(3))
                bar.ax.tick_params(labelsize=SIZE, pad=1)
                bar.outline.set_visible(False)
            top += side + LINE * bool(row.captions) + 0.07
        part = "" if shown == len(frames) else f"{shown} of "
        figure.set_label(f"{title}, {part}{len(frames)} frame{'s' * (len(frames) > 1)}. {note}".strip())
    return figure


def seconds(time: float, longest: float) -> str:
    """A time in a clip, with as many digits as have room."""
    return f"{time:.{2 if longest < 10 else 1 if longest < 100 else 0}f} s"


def film_pictures(frames: np.ndarray, times: Sequence[float], rows: Sequence[FilmRow], title: str) -> list[np.ndarray]:
    """The animation, uint8 [h, w, 3]: each frame of the clip beside each row's picture at its share of the clip."""
    rows = [FilmRow("frame", list(frames)), *rows]
    across = min(PANELS, len(rows))
    down = -(-len(rows) // across)
    pictures = []
    for number, frame in enumerate(frames):
        size = max(PANEL * across, 3.2), (PANEL + 0.55) * down + 0.45
        with drawing(*size, **{"figure.dpi": 100}) as figure:
            for panel, row in enumerate(rows, 1):
                axes = figure.add_subplot(down, across, panel)
                place = (2 * number + 1) * len(row.pictures) // (2 * len(frames))
                _picture(axes, row, place, frame if row.over else None)
                axes.set_title(_wrapped(row.label, 26), fontsize=9)
            figure.suptitle(f"{title}, {times[number]:.2f} s", fontsize=10)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return pictures


def save_gif(pictures: Sequence[np.ndarray], path: Path) -> str:
    """Save pictures, uint8 [h, w, 3], as an animated GIF that repeats. Returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f"{path.name}.gif"
    colours: dict[str, Any] = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 1, "dither": Image.Dither.NONE}
    images = [Image.fromarray(picture).quantize(**colours) for picture in pictures]
    with whole(name) as part:
        images[0].save(part, "GIF", save_all=True, append_images=images[1:], duration=round(1000 * SECONDS), loop=0)
    return str(name)


def _picture(axes: Axes, row: FilmRow, number: int, under: np.ndarray | None = None) -> None:
    """Draw one picture of a row, hatched in its gaps."""
    picture, scale = row.pictures[number], row.scale
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    axes.patch.set(hatch="/////", edgecolor="#bbbbbb", linewidth=0)
    if under is not None:
        axes.imshow(under @ np.array([0.299, 0.587, 0.114]), cmap="gray", vmin=0, vmax=1, extent=extent)
    if scale is None:
        seen = np.isfinite(picture).all(axis=-1, keepdims=True)
        coloured = np.concatenate([np.where(seen, picture, 0).clip(0, 1), seen], axis=-1)
        axes.imshow(coloured, extent=extent, interpolation="nearest")
    else:
        veil = 1.0 if under is None else VEIL
        axes.imshow(picture, cmap=MAP, norm=scale, alpha=veil, extent=extent, interpolation="nearest")
    if under is None and max(height, width) <= OUTLINED:
        lines: dict[str, Any] = {"colors": "white", "linewidth": 0.3, "alpha": 0.45}
        axes.vlines(range(1, width), 0, height, **lines)
        axes.hlines(range(1, height), 0, width, **lines)
    if row.marks:
        tops, lefts = np.nonzero(row.marks[number])
        axes.plot(lefts + 0.5, tops + 0.5, **DOT)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axes.spines[:].set_visible(False)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.fill(part, width) for part in text.splitlines())
