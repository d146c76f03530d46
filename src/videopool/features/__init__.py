"""Features of single frames: reading clips ahead, and keeping what the tower made of them."""

from videopool.features.loading import ClipDataset, ClipJob, LoadedClip, LoadPlan
from videopool.features.store import ClipState, FeatureStore, MemoryStore

__all__ = [
    "ClipDataset",
    "ClipJob",
    "ClipState",
    "FeatureStore",
    "LoadPlan",
    "LoadedClip",
    "MemoryStore",
]
