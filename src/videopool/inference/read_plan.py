"""Which clips are read together, and what the tower sees of a clip under a pooling; one plan for every job."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.benchmarks import Sample
from videopool.features import ClipJob, Composed, ReadPlan
from videopool.models import Backbone
from videopool.pooling import Pooling, image_keys, thumbnail_by, thumbnail_of, tiled_by
from videopool.video import Sampler, ShrunkFirst

BATCHES = 4  # of few clips, so that the model works on one while others are read


def image_processor_of(config: DictConfig, backbone: Backbone) -> Any:
    """The image processor of a point: the model's, or the one of PLLaVA's evaluation (`compat.longest`)."""
    longest = config.compat.longest
    return backbone.image_processor if longest is None else ShrunkFirst(backbone.image_processor, int(longest))


def read_plan(
    sampler: Sampler, reader: str, image_processor: Any, pooling: Pooling, still: bool = False, together: int = 1
) -> ReadPlan:
    """How clips are read for a pooling: by frames, so many together, or tiled unless `still`; perhaps a thumbnail.

    Poolings that make the same image share its features: its name is its content for fixed frames. Raises
    PoolingShapeError or PoolingContractError if the pooling cannot make an image of so many frames.
    """
    tiled, shown = image_keys(pooling, sampler.num, still)
    tile = None if tiled is None else Composed(f"tiled {tiled}", partial(tiled_by, pooling))
    if shown is None:
        return ReadPlan(sampler, reader, image_processor, tile, together=together)
    part = thumbnail_of(pooling)
    thumbnail = Composed(f"thumbnail {shown}", partial(thumbnail_by, part), part.shown)
    return ReadPlan(sampler, reader, image_processor, tile, thumbnail, together)


def group_by_clip(samples: Sequence[Sample]) -> list[ClipJob]:
    """Group samples that see the same frames, in the order of their first appearance."""
    groups: dict[tuple[Path, float | None, float | None], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.clip, sample.start, sample.end), []).append(sample)
    return [
        ClipJob(clip, group[0].clip_id, tuple(group), start, end, group[0].fps)
        for (clip, start, end), group in groups.items()
    ]


def clips_at_once(job: Any, visual_tokens: int, clips: int | None) -> int:
    """Batch size for clips of so many visual tokens (0 if blind), within a job's max_clips and max_visual_tokens.

    `clips`, the number of all if known, make at least BATCHES batches.
    """
    most = min(int(job.max_clips), int(job.max_visual_tokens) // max(1, visual_tokens))
    return max(1, most if clips is None else min(most, -(-clips // BATCHES)))
