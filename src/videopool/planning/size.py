"""How much a benchmark asks."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from videopool.benchmarks import Benchmark
from videopool.config.build import build, number
from videopool.errors import UserError


@dataclass(frozen=True)
class Size:
    """How much a benchmark asks.

    Attributes:
        clips: clips, or stretches of clips, that are read; None if that cannot be said without making or fetching it.
        samples: on each clip that the headline's samples are about; empty if that cannot be said.
        warnings: why not.
    """

    clips: int | None = None
    samples: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


def benchmark_size(config: DictConfig) -> Size:
    """Clips and samples of a point's benchmark.

    job.clips and job.samples count most. A benchmark that is made on first use says its numbers itself (`clips`,
    `per_task`); others are read where their `root` is a folder.
    """
    root = OmegaConf.select(config, "benchmark.root")
    if isinstance(OmegaConf.select(config, "benchmark.clips"), int):
        size = _stated(config)
    elif root is not None and Path(root).is_dir():
        size = _read(OmegaConf.to_yaml(config.benchmark, resolve=True))
    else:
        size = Size()
    if config.job.clips is not None:
        size = replace(size, clips=number(config, "job.clips", 1, whole=True), warnings=())
    if config.job.samples is not None and size.clips is not None:
        size = replace(size, samples=_spread(number(config, "job.samples", 1, whole=True), size.clips))
    return size


def _stated(config: DictConfig) -> Size:
    """The size of a benchmark that is made as its configuration says."""
    clips = number(config, "benchmark.clips", 1, whole=True)
    tasks = OmegaConf.select(config, f"benchmark.groups.{config.benchmark.get('headline')}")
    if tasks is None or not isinstance(config.benchmark.get("per_task"), int):
        return Size(clips)
    each = number(config, "benchmark.per_task", 1, whole=True)
    limit = config.benchmark.get("limit")
    return Size(clips, _spread(len(tasks) * (each if limit is None else min(each, int(limit))), clips))


def _spread(samples: int, clips: int) -> tuple[int, ...]:
    """So many samples on so many clips, as evenly as can be; clips without any are left out."""
    return tuple(filter(None, (samples // clips + (place < samples % clips) for place in range(clips))))


@lru_cache(maxsize=16)
def _read(benchmark: str) -> Size:
    """The size of a benchmark that is there, read once for all points of a run."""
    try:
        built: Benchmark = build(OmegaConf.create({"benchmark": OmegaConf.create(benchmark)}), "benchmark")
    except UserError as error:
        return Size(warnings=(str(error).splitlines()[0],))
    clips = len({(sample.clip, sample.start, sample.end) for sample in built.samples})
    counted = Counter(sample.clip_id for sample in built.samples if built.in_headline(sample.task))
    return Size(clips, tuple(counted.values()))
