"""Figures: data frame in, matplotlib Figure out."""

from videopool.figures.scores import score_against
from videopool.figures.style import save_figure

__all__ = ["save_figure", "score_against"]
