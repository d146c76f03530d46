"""Features that are made up, of clips that are not there."""

import hashlib

import torch

from videopool.features import ClipKey, FeatureSource

ROWS, WIDTH = 10, 4
SOURCE = FeatureSource(
    "pyav", "processor", "tower", "video", "-2", "float32", (ROWS, WIDTH), "cpu sdpa 32-true", "av 1"
)


def key(name: object, source: FeatureSource = SOURCE) -> ClipKey:
    """A clip, by any name."""
    return ClipKey(source, hashlib.sha256(str(name).encode()).hexdigest())


def made(*views, seed=0, scale=1.0, dtype=torch.float32):
    """Random features by view; the same for the same view and seed."""
    found = {}
    for view in views:
        generator = torch.Generator().manual_seed(hash((view, seed)) % 2**31 if isinstance(view, int) else seed)
        found[view] = (torch.randn(ROWS, WIDTH, generator=generator) * scale).to(dtype)
    return found


def same(one, other):
    """Whether two sets of features are of the same views and equal to the bit."""
    return one.keys() == other.keys() and all(
        one[view].dtype == other[view].dtype and torch.equal(one[view], other[view]) for view in one
    )
