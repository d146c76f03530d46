"""Poolings: maps from a patch grid [batch, frames, height, width, dim] to visual tokens [batch, tokens, dim]."""

from videopool.pooling.adaptive import Adaptive
from videopool.pooling.average import Average
from videopool.pooling.base import (
    Chain,
    GridPooling,
    Pooling,
    PoolingContext,
    PoolingContractError,
    PoolingShapeError,
    checked,
    map_signature,
)
from videopool.pooling.dual_mean import DualMean
from videopool.pooling.frame_cls import FrameCls
from videopool.pooling.horizontal import Horizontal
from videopool.pooling.image_grid import ImageGrid
from videopool.pooling.none import NoPooling
from videopool.pooling.slowfast import SlowFast
from videopool.pooling.strided import Strided

__all__ = [
    "Adaptive",
    "Average",
    "Chain",
    "DualMean",
    "FrameCls",
    "GridPooling",
    "Horizontal",
    "ImageGrid",
    "NoPooling",
    "Pooling",
    "PoolingContext",
    "PoolingContractError",
    "PoolingShapeError",
    "SlowFast",
    "Strided",
    "checked",
    "map_signature",
]
