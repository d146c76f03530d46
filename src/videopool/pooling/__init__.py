"""Poolings: patch grid to visual tokens.

From [batch, frames, height, width, dim] to [batch, tokens, dim].
"""

from videopool.pooling.adaptive import Adaptive
from videopool.pooling.attention_resampler import AttentionResampler
from videopool.pooling.average import Average
from videopool.pooling.base import (
    Chain,
    GridPooling,
    Pooling,
    PoolingContext,
    PoolingContractError,
    PoolingShapeError,
    announced,
    checked,
    class_name,
    grid_frames,
    image_keys,
    map_signature,
    thumbnail_by,
    thumbnail_of,
    tiled_by,
)
from videopool.pooling.blind import Blind
from videopool.pooling.dual_mean import DualMean
from videopool.pooling.frame_cls import FrameCls
from videopool.pooling.generalised_mean import GeneralisedMean
from videopool.pooling.grid_pyramid import GridPyramid
from videopool.pooling.horizontal import Horizontal
from videopool.pooling.image_grid import ImageGrid
from videopool.pooling.intervention import Intervention
from videopool.pooling.none import NoPooling
from videopool.pooling.norm_weighted import NormWeighted
from videopool.pooling.norms import ClipNorm, RescaleNorm
from videopool.pooling.outliers import DropOutliers, InjectOutliers
from videopool.pooling.robust import Median, TrimmedMean
from videopool.pooling.shuffle import ShuffleSpace, ShuffleTime
from videopool.pooling.slowfast import SlowFast
from videopool.pooling.strided import Strided
from videopool.pooling.subsample import Subsample
from videopool.pooling.text_guided import TextGuided
from videopool.pooling.thumbnail import ThumbnailSampling
from videopool.pooling.token_merging import TokenMerging

__all__ = [
    "Adaptive",
    "AttentionResampler",
    "Average",
    "Blind",
    "Chain",
    "ClipNorm",
    "DropOutliers",
    "DualMean",
    "FrameCls",
    "GeneralisedMean",
    "GridPooling",
    "GridPyramid",
    "Horizontal",
    "ImageGrid",
    "InjectOutliers",
    "Intervention",
    "Median",
    "NoPooling",
    "NormWeighted",
    "Pooling",
    "PoolingContext",
    "PoolingContractError",
    "PoolingShapeError",
    "RescaleNorm",
    "ShuffleSpace",
    "ShuffleTime",
    "SlowFast",
    "Strided",
    "Subsample",
    "TextGuided",
    "ThumbnailSampling",
    "TokenMerging",
    "TrimmedMean",
    "announced",
    "checked",
    "class_name",
    "grid_frames",
    "image_keys",
    "map_signature",
    "thumbnail_by",
    "thumbnail_of",
    "tiled_by",
]
