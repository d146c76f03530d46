"""Poolings: patch grid to visual tokens.

From [batch, frames, height, width, dim] to [batch, tokens, dim].
"""

from videopool.pooling.adaptive import Adaptive, Horizontal, Strided
from videopool.pooling.attention_resampler import AttentionResampler
from videopool.pooling.base import GridPooling, Pooling, PoolingContext, PoolingContractError, PoolingShapeError
from videopool.pooling.baselines import Average, Blind, DualMean, NoPooling
from videopool.pooling.boxes import GeneralisedMean, Median, NormWeighted, TextGuided, TrimmedMean
from videopool.pooling.composed import Chain, FrameCls, SlowFast
from videopool.pooling.contract import (
    announced,
    checked,
    class_name,
    grid_frames,
    image_keys,
    map_signature,
    places_by,
    random_input,
    thumbnail_by,
    thumbnail_of,
    tiled_by,
)
from videopool.pooling.images import GridPyramid, ImageGrid, ThumbnailSampling
from videopool.pooling.intervention import (
    ClipNorm,
    DropOutliers,
    InjectOutliers,
    Intervention,
    RescaleNorm,
    ShuffleSpace,
    ShuffleTime,
)
from videopool.pooling.token_merging import Subsample, TokenMerging

__all__ = [
    "Adaptive", "AttentionResampler", "Average", "Blind", "Chain", "ClipNorm", "DropOutliers", "DualMean", "FrameCls",
    "GeneralisedMean", "GridPooling", "GridPyramid", "Horizontal", "ImageGrid", "InjectOutliers", "Intervention",
    "Median", "NoPooling", "NormWeighted", "Pooling", "PoolingContext", "PoolingContractError", "PoolingShapeError",
    "RescaleNorm", "ShuffleSpace", "ShuffleTime", "SlowFast", "Strided", "Subsample", "TextGuided",
    "ThumbnailSampling", "TokenMerging", "TrimmedMean", "announced", "checked", "class_name", "grid_frames",
    "image_keys", "map_signature", "places_by", "random_input", "thumbnail_by", "thumbnail_of", "tiled_by",
]  # fmt: skip
