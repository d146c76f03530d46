"""What the tower sees of a clip under a pooling; one plan for every job."""

from functools import partial
from typing import Any

from omegaconf import DictConfig

from videopool.features import Composed, LoadPlan
from videopool.models import Backbone
from videopool.pooling import Pooling, image_keys, thumbnail_by, thumbnail_of, tiled_by
from videopool.video import Sampler, ShrunkFirst


def image_processor_of(config: DictConfig, backbone: Backbone) -> Any:
    """What makes pixels of a point's views: the model's, or as PLLaVA's evaluation uses it."""
    longest = config.compat.longest
    return backbone.image_processor if longest is None else ShrunkFirst(backbone.image_processor, int(longest))


def load_plan(sampler: Sampler, reader: str, image_processor: Any, pooling: Pooling, still: bool = False) -> LoadPlan:
    """How clips are read for a pooling: frame by frame or tiled into one image, and perhaps with a thumbnail behind.

    Images are named by what is made of fixed frames, so that poolings that make the same ones share their features.

    Args:
        still: the clips are still images, which are one image already and are not tiled.

    Raises:
        PoolingShapeError, PoolingContractError: the pooling cannot make an image of so many frames.
    """
    tiled, shown = image_keys(pooling, sampler.num, still)
    tile = thumbnail = None
    if tiled is not None:
        tile = Composed(f"tiled {tiled}", partial(tiled_by, pooling))
    if shown is not None:
        part = thumbnail_of(pooling)
        thumbnail = Composed(f"thumbnail {shown}", partial(thumbnail_by, part), part.shown)
    return LoadPlan(sampler, reader, image_processor, tile, thumbnail)
