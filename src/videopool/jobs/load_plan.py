"""What the tower sees of a clip under a pooling."""

from typing import Any

from videopool.features import LoadPlan
from videopool.pooling import ImageGrid, Pooling, ThumbnailSampling
from videopool.video import Sampler


def load_plan(sampler: Sampler, reader: str, image_processor: Any, pooling: Pooling) -> LoadPlan:
    """How clips are read for a pooling: frame by frame, tiled into one image, or with a thumbnail behind the frames."""
    layout = f"{type(pooling).__module__}.{type(pooling).__qualname__} {pooling.label}"
    if isinstance(pooling, ImageGrid):
        return LoadPlan(sampler, reader, image_processor, pooling.tile, layout)
    if isinstance(pooling, ThumbnailSampling):
        # The image depends on which frames it shows and how they are laid out, not on the tokens beside it.
        rows, cols = pooling.image.rows, pooling.image.cols
        layout = f"thumbnail {rows}x{cols}"
        return LoadPlan(sampler, reader, image_processor, pooling.thumbnail, layout, pooling.shown)
    return LoadPlan(sampler, reader, image_processor)
