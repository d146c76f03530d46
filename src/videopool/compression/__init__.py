"""Compression: fewer tokens by likeness and saliency.

allocator x selector x merger, and the two methods that do not decompose. No training.
"""

from videopool.compression.allocators import Allocator, Curvature, FrameWeights, Groups, Outliers, Uniform, WholeClip
from videopool.compression.clip import Clip, Part
from videopool.compression.components import Components
from videopool.compression.compress import Compress
from videopool.compression.mergers import Merger, Nearest, Neighbours, Runs
from videopool.compression.quadtree import Quadtree
from videopool.compression.scenes import Clusters, Windows
from videopool.compression.segments import Anchors, Trees
from videopool.compression.selectors import (
    Changed,
    DensityPeaks,
    Even,
    FarFromMean,
    MaxMin,
    Saliency,
    SaliencyEven,
    Selector,
    Unusual,
)  # fmt: skip

__all__ = [
    "Allocator", "Anchors", "Changed", "Clip", "Clusters", "Components", "Compress", "Curvature", "DensityPeaks",
    "Even", "FarFromMean", "FrameWeights", "Groups", "MaxMin", "Merger", "Nearest", "Neighbours", "Outliers", "Part",
    "Quadtree", "Runs", "Saliency", "SaliencyEven", "Selector", "Trees", "Uniform", "Unusual", "WholeClip", "Windows",
]  # fmt: skip
