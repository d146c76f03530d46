"""From samples to clips that are read once."""

from collections.abc import Sequence
from typing import Any

from videopool.benchmarks import Sample
from videopool.features import ClipJob


def group_by_clip(samples: Sequence[Sample]) -> list[ClipJob]:
    """Samples that see the same frames together, in the order of their first appearance."""
    groups: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.clip, sample.start, sample.end), []).append(sample)
    return [
        ClipJob(first.clip, first.clip_id, tuple(members), first.start, first.end, first.fps)
        for members in groups.values()
        for first in members[:1]
    ]


def clips_at_once(job: Any, visual_tokens: int) -> int:
    """How many clips of so many visual tokens are read together, as `max_clips` and `max_visual_tokens` of a job say.

    A clip that leaves none, of a blind model, takes the room of one.
    """
    return max(1, min(int(job.max_clips), int(job.max_visual_tokens) // max(1, visual_tokens)))
