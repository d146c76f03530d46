"""Video: clips opened, frames chosen and read."""

from videopool.video.clip import Clip, ClipBoundsError, ClipInfo, UnreadableClipError, printable
from videopool.video.images import IMAGE_SUFFIXES, animation, frame_files, is_hidden
from videopool.video.opening import READERS, READING, VIDEO_SUFFIXES, open_clip
from videopool.video.pixels import Proportional, ShrunkFirst, Unresizable, from_pixels, to_pixels
from videopool.video.samplers import (
    CyclingSampler,
    FpsSampler,
    FrameSamplingError,
    InteriorSampler,
    LinspaceSampler,
    MiddleSampler,
    NestedSampler,
    RandomSampler,
    Sampler,
    UniformSampler,
    bounds_to_span,
)

__all__ = [
    "IMAGE_SUFFIXES", "READERS", "READING", "VIDEO_SUFFIXES", "Clip", "ClipBoundsError", "ClipInfo", "CyclingSampler",
    "FpsSampler", "FrameSamplingError", "InteriorSampler", "LinspaceSampler", "MiddleSampler", "NestedSampler",
    "Proportional", "RandomSampler", "Sampler", "ShrunkFirst", "UniformSampler", "UnreadableClipError", "Unresizable",
    "animation", "bounds_to_span", "frame_files", "from_pixels", "is_hidden", "open_clip", "printable", "to_pixels",
]  # fmt: skip
