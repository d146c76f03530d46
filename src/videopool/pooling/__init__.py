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
from videopool.pooling.none import NoPooling

__all__ = [
    "Adaptive",
    "Average",
    "Chain",
    "GridPooling",
    "NoPooling",
    "Pooling",
    "PoolingContext",
    "PoolingContractError",
    "PoolingShapeError",
    "checked",
    "map_signature",
]
