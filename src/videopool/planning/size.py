"""The size of a benchmark, and the differences that it can detect."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from videopool.benchmarks import Benchmark
from videopool.config.build import build, number
from videopool.errors import UserError
from videopool.results.comparison import same_budget
from videopool.results.power import detectable_difference

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """The size of a benchmark: clips, or stretches of clips, and the headline's samples on each.

    None, or empty, if unknown without rendering or fetching the benchmark; a warning may say why.
    """

    clips: int | None = None
    samples: tuple[int, ...] = ()
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
        size = replace(size, samples=_spread(number(config, "job.samples", 1, whole=True), size.clips))
    return size


def _stated(config: DictConfig) -> Size:
    """The size of a benchmark that is rendered from its configuration."""
    clips = number(config, "benchmark.clips", 1, whole=True)
    tasks = OmegaConf.select(config, f"benchmark.groups.{config.benchmark.get('headline')}")
    if tasks is None or not isinstance(config.benchmark.get("per_task"), int):
        return Size(clips)
    each = number(config, "benchmark.per_task", 1, whole=True)
    limit = config.benchmark.get("limit")
    return Size(clips, _spread(len(tasks) * (each if limit is None else min(each, int(limit))), clips))


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
    clips = len({(sample.clip, sample.start, sample.end) for sample in built.samples})
    counted = Counter(sample.clip_id for sample in built.samples if built.in_headline(sample.task))
    return Size(clips, tuple(counted.values()))


def design(config: DictConfig, samples: Sequence[int]) -> dict[str, Any] | None:
    """Settings of a point's power, fit for JSON; None if samples per clip are unknown, or nothing flips."""
    flipped, correlation = number(config, "job.flipped", 0, 1), number(config, "job.correlation", 0, 1)
    stated = config.job.comparisons
    comparisons = None if stated is None else number(config, "job.comparisons", 1, whole=True)
    if not samples or not flipped:
        return None
    sizes = [[size, count] for size, count in sorted(Counter(samples).items())]
    settings = {"sizes": sizes, "flipped": flipped, "correlation": correlation, "comparisons": comparisons}
    return {**settings, "baseline": str(config.baseline)}


def with_power(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of a run with `comparisons` and `detectable_difference`, from their `design`.

    By default, Holm corrects for the comparisons that a report of these points makes.
    """
    known: dict[str, float | None] = {}  # by design and comparisons: points of one benchmark share them
    powered = []
    for row in rows:
        own, comparisons, difference = row["design"], None, None
        if own is not None:
            family = [other for other in rows if other["benchmark"] == row["benchmark"]]
            comparisons = own["comparisons"] or max(1, _comparisons(family, own["baseline"]))
            key = f"{own} {comparisons}"
            if key not in known:
                sizes = [size for size, count in own["sizes"] for _ in range(count)]
                known[key] = detectable_difference(sizes, own["correlation"], own["flipped"], comparisons)
            difference = known[key]
        powered.append({**row, "comparisons": comparisons, "detectable_difference": difference})
    return powered


def _comparisons(rows: Sequence[Row], baseline: str) -> int:
    """The number of pairs that add_differences makes of points of one benchmark; without the baseline, at most."""
    like = [row for row in rows if row["pooling"] == baseline]
    if not like:
        return len(rows) - 1
    pairs = 0
    for row in rows:
        own = [other for other in like if other["model"] == row["model"]]
        partners = [other for other in own if other["frames"] == row["frames"]][:1]
        if row["visual_tokens"] is not None:
            tokens = row["visual_tokens"]
            near = [other for other in own if same_budget(other["visual_tokens"], tokens)]
            partners += sorted(near, key=lambda other: abs(other["visual_tokens"] - tokens))[:1]
        pairs += len({id(other) for other in partners} - {id(row)})
    return pairs
