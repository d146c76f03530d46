"""Features: clips read ahead, tower features stored."""

from videopool.features.disk import DiskStore
from videopool.features.loading import (
    ClipDataset,
    ClipJob,
    ClipRequest,
    Composed,
    LoadedClip,
    ReadPlan,
    content_hash,
    file_state,
    in_order,
    load_clip,
    read_again,
    request_clip,
)
from videopool.features.source import ClipKey, FeatureSource, View, frames_of, software
from videopool.features.store import ClipState, FeatureStore, FeatureStoreError, MemoryStore, rounds

__all__ = [
    "ClipDataset", "ClipJob", "ClipKey", "ClipRequest", "ClipState", "Composed", "DiskStore", "FeatureSource",
    "FeatureStore", "FeatureStoreError", "LoadedClip", "MemoryStore", "ReadPlan", "View", "content_hash",
    "file_state", "frames_of", "in_order", "load_clip", "read_again", "request_clip", "rounds", "software",
]  # fmt: skip
