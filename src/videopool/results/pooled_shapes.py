"""Which shape each point's pooling left of its grid, for comparing shapes under one operator."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from videopool.results.point import MANIFEST, read_json

AXES = ("frames", "height", "width")
SHAPE_WORD = re.compile(r"\b[T\d]+x[H\d]+x[W\d]+\b")  # as labels of poolings have it: 16x12x12, Tx6x6


def add_pooled_shapes(table: pd.DataFrame) -> pd.DataFrame:
    """A study's points whose pooling has windows along all three axes, and the shape that it left.

    Args:
        table: from load_study.

    Returns:
        Those rows, with `operator` (the pooling's label without the shape), `pooled_frames`, `pooled_height` and
        `pooled_width`. What a manifest says was done to the grid counts, not what was asked for: a clip with fewer
        frames than asked keeps them.
    """
    shapes = {place: _shape(row.folder) for place, row in table.iterrows()}
    found = table.loc[[place for place, shape in shapes.items() if shape is not None]].copy()
    found["operator"] = [" ".join(SHAPE_WORD.sub("", str(label)).split()) for label in found.pooling]
    for axis, name in enumerate(AXES):
        found[f"pooled_{name}"] = [shape[axis] for shape in shapes.values() if shape is not None]
    return found


def _shape(folder: str | Path) -> tuple[int, int, int] | None:
    """(T', H', W') by a point's windows; None where its pooling has none along some axis."""
    point = (read_json(Path(folder) / MANIFEST) or {}).get("point")
    windows = point.get("windows") if isinstance(point, Mapping) else None
    if not isinstance(windows, Mapping) or not all(isinstance(windows.get(name), list) for name in AXES):
        return None
    frames, height, width = (len(windows[name]) for name in AXES)
    return frames, height, width
