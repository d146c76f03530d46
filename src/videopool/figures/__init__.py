"""Figures: data frame in, matplotlib Figure out."""

from videopool.figures.rows import differences, ranked
from videopool.figures.scores import score_against
from videopool.figures.shape_maps import score_by_shape, shape_panels
from videopool.figures.style import formats, save_figure
from videopool.figures.training import learning_curve, training_curves

__all__ = [
    "differences", "formats", "learning_curve", "ranked", "save_figure", "score_against", "score_by_shape",
    "shape_panels", "training_curves",
]  # fmt: skip
