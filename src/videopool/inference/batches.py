"""Samples grouped by clip, so that each clip is read once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videopool.benchmarks import Sample
from videopool.features import ClipJob


def group_by_clip(samples: Sequence[Sample]) -> list[ClipJob]:
    """Group samples that see the same frames, in the order of their first appearance."""
    groups: dict[tuple[Path, float | None, float | None], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.clip, sample.start, sample.end), []).append(sample)
    return [
        ClipJob(clip, group[0].clip_id, tuple(group), start, end, group[0].fps)
        for (clip, start, end), group in groups.items()
    ]


def clips_at_once(job: Any, visual_tokens: int) -> int:
    """Batch size for clips of so many visual tokens (0 if blind), within a job's max_clips and max_visual_tokens."""
    return max(1, min(int(job.max_clips), int(job.max_visual_tokens) // max(1, visual_tokens)))
