"""Reading clips and choosing their frames."""

from videopool.video.clip import Clip, ClipInfo
from videopool.video.errors import ClipBoundsError, FrameSamplingError, UnreadableClipError
from videopool.video.opening import READERS, VIDEO_SUFFIXES, open_clip
from videopool.video.pixels import ShrunkFirst, from_pixels, to_pixels
from videopool.video.samplers import (
    CyclingSampler,
    FpsSampler,
    InteriorSampler,
    LinspaceSampler,
    MiddleSampler,
    RandomSampler,
    Sampler,
    UniformSampler,
    bounds_to_span,
)

__all__ = [
    "READERS",
    "VIDEO_SUFFIXES",
    "Clip",
    "ClipBoundsError",
    "ClipInfo",
    "CyclingSampler",
    "FpsSampler",
    "FrameSamplingError",
    "InteriorSampler",
    "LinspaceSampler",
    "MiddleSampler",
    "RandomSampler",
    "Sampler",
    "ShrunkFirst",
    "UniformSampler",
    "UnreadableClipError",
    "bounds_to_span",
    "from_pixels",
    "open_clip",
    "to_pixels",
]
