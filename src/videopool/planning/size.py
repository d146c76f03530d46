"""The size of a benchmark, as far as it is known without rendering or fetching it."""

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
    """The size of a benchmark, as far as it is known without rendering or fetching it; a warning may say why not."""

    clips: int | None = None  # or stretches of clips
    samples: tuple[int, ...] = ()  # of the headline, on each clip
    questions: int = 0  # all of them; 0 if unknown
    most: int = 1  # questions on one clip; on average, where they are stated
    warnings: tuple[str, ...] = ()


def benchmark_size(config: DictConfig) -> Size:
    """Clips and samples of a point's benchmark.

    job.clips and job.samples come first. A benchmark that is rendered on first use states its numbers (`clips`,
    `per_task`); others are read if their `root` is a folder.
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
        samples = number(config, "job.samples", 1, whole=True)
        questions = max(samples, size.questions)
        size = replace(
            size, samples=_spread(samples, size.clips), questions=questions, most=-(-questions // size.clips)
        )
    return size


def _stated(config: DictConfig) -> Size:
    """The size of a benchmark that is rendered from its configuration."""
    clips = number(config, "benchmark.clips", 1, whole=True)
    tasks = OmegaConf.select(config, f"benchmark.groups.{config.benchmark.get('headline')}")
    if tasks is None or not isinstance(config.benchmark.get("per_task"), int):
        return Size(clips)
    each = number(config, "benchmark.per_task", 1, whole=True)
    limit = config.benchmark.get("limit")
    each = each if limit is None else min(each, int(limit))
    every = {task for group in config.benchmark.groups.values() for task in group}
    return Size(clips, _spread(len(tasks) * each, clips), len(every) * each, -(-len(every) * each // clips))


def _spread(samples: int, clips: int) -> tuple[int, ...]:
    """Samples per clip, as even as possible, without clips that have none."""
    return tuple(filter(None, (samples // clips + (place < samples % clips) for place in range(clips))))


@lru_cache(maxsize=16)
def _read(benchmark: str) -> Size:
    """The size of a benchmark on disk, read once for all points of a run."""
    try:
        built: Benchmark = build(OmegaConf.create({"benchmark": OmegaConf.create(benchmark)}), "benchmark")
    except UserError as error:
        return Size(warnings=(str(error).splitlines()[0],))
    clips = Counter((sample.clip, sample.start, sample.end) for sample in built.samples)
    counted = Counter(sample.clip_id for sample in built.samples if built.in_headline(sample.task))
    return Size(len(clips), tuple(counted.values()), len(built.samples), max(clips.values(), default=1))
