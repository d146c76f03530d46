"""job=plan: what points would cost, and what their samples could show, from configuration alone."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from videopool.benchmarks import Benchmark
from videopool.jobs.build import build, build_pooling, number, plain
from videopool.jobs.clip_jobs import clips_at_once
from videopool.jobs.errors import USER_ERRORS, ConfigError
from videopool.jobs.outcome import COMPLETE, Outcome
from videopool.jobs.plan_power import design
from videopool.jobs.plan_table import with_unit
from videopool.models import ModelError, ModelShape
from videopool.models.configuration import DTYPES
from videopool.models.cost import (
    feature_bytes,
    kv_cache_bytes,
    peak_bytes,
    prefill_flops,
    projector_flops,
    tower_flops,
    weight_bytes,
)
from videopool.models.shape import point_shape
from videopool.models.stages import CLS, STAGES, THUMBNAIL, check_needs
from videopool.pooling import Pooling, announced, grid_frames, image_keys
from videopool.video import Sampler

MB, GB = 1e6, 1e9
KEEPS_NOTHING = "videopool.features.FeatureStore"


@dataclass(frozen=True)
class Setting:
    """Model, pooling and frames of a point, without its weights and its benchmark.

    Attributes:
        model: the resolved group `model`.
        shape: the model's sizes.
        bytes_per_value: of the model's dtype.
        stage: where pooling acts.
        pooling, sampler: as configured.
        images: how many the tower reads of a clip: frames, or one that shows them all, and a thumbnail.
        pooled: tokens that the pooling makes of a clip.
        label: the model as tables call it, with what is changed about it.
    """

    model: dict[str, Any]
    shape: ModelShape
    bytes_per_value: int
    stage: str
    pooling: Pooling
    sampler: Sampler
    images: int
    pooled: int
    label: str

    @property
    def tokens(self) -> int:
        """Visual tokens that the language model reads of a clip: pooled ones and the family's separators."""
        return self.pooled + self.shape.separators

    @property
    def frames(self) -> int:
        return int(self.sampler.num)

    @property
    def projected(self) -> int:
        """Tokens that the projector reads of a clip."""
        patches = self.images * self.shape.height * self.shape.width
        return self.pooled if self.stage == "encoder" else patches + self.grid_frames * (CLS in self.pooling.needs)

    @property
    def grid_frames(self) -> int:
        """Frames of the patch grid that is pooled: the images without a thumbnail."""
        return self.images - (THUMBNAIL in self.pooling.needs)

    @property
    def name(self) -> str:
        parts = [self.label, self.pooling.label, f"f{self.frames}"]
        parts += [self.stage] if self.stage != "projector" else []
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-")


def setting(config: DictConfig) -> Setting:
    """Make pooling and sampler and look up the model's sizes.

    Raises:
        any of USER_ERRORS: something that could not be evaluated either.
    """
    stage = str(config.pooling.get("stage", "projector"))
    if stage not in STAGES:
        raise ConfigError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
    pooling = build_pooling(config)
    sampler: Sampler = build(config, "frames")
    model = plain(config.model)
    if "base_url" in model:
        raise ConfigError("model=api: nothing is known of the inside of a model behind an API; choose another model")
    if model["dtype"] not in DTYPES:
        raise ModelError(f"model.dtype={model['dtype']}: choose one of {', '.join(DTYPES)}")
    shape = point_shape(model)
    check_needs(pooling, shape, str(model["name"]), stage)
    image_keys(pooling, sampler.num)  # whether the frames are as many as it makes images of
    images = grid_frames(pooling, sampler.num)
    pooled = announced(pooling, images, shape.height, shape.width)
    images += THUMBNAIL in pooling.needs
    size = DTYPES[model["dtype"]].itemsize
    return Setting(model, shape, size, stage, pooling, sampler, images, pooled, _label(config, model))


def _label(config: DictConfig, model: dict[str, Any]) -> str:
    changed = (("alpha", OmegaConf.select(config, "lora.alpha")), ("rope", model.get("rope_factor")))
    return " ".join([str(model["name"]), *(f"{word} {value:g}" for word, value in changed if value is not None)])


def plan(config: DictConfig) -> Outcome:
    """What one point would cost; its row goes into the table of the run."""
    row = cost_of(config)
    if row["prefill_tflops"] is None:
        told = "the model is behind an API, so its costs are not known here"
    else:
        told = f"{row['visual_tokens']} visual tokens, {with_unit(row['prefill_tflops'], 'TFLOPs')} of prefill"
    return Outcome(COMPLETE, str(row["point"]), told, row=row)


def cost_of(config: DictConfig) -> dict[str, Any]:
    """A point's row: what it is, operations per clip (1e12), memory and disk (1e9 bytes), warnings.

    Operations and key-value cache are those of one clip; peak memory is that of as many clips as job=evaluate
    reads at once. The cache and the peak include the text, the prefill's operations do not.
    """
    if "base_url" in config.model:
        return _row_of_api(config)
    point = setting(config)
    shape, size = point.shape, point.bytes_per_value
    text = number(config, "job.text_tokens", 0, whole=True)
    for key in ("job.max_visual_tokens", "job.max_clips"):
        number(config, key, 1, whole=True)
    at_once = clips_at_once(config.job, point.tokens)
    asked = benchmark_size(config)
    clips = asked.clips
    per_clip = point.images * feature_bytes(shape, _store_size(config, size))
    warnings = [*context_warnings(shape, point.tokens, text), *asked.warnings]
    return {
        "point": point.name,
        "model": point.label,
        "dtype": point.model["dtype"],
        "pooling": point.pooling.label,
        "stage": point.stage,
        "frames": point.frames,
        "visual_tokens": point.tokens,
        "context": shape.context,
        "prefill_tflops": prefill_flops(shape, point.tokens) / 1e12,
        "tower_tflops": tower_flops(shape, point.images) / 1e12,
        "projector_tflops": projector_flops(shape, point.projected) / 1e12,
        "kv_cache_gb": kv_cache_bytes(shape, point.tokens + text, size) / GB,
        "weights_gb": weight_bytes(shape, size) / GB,
        "features_mb_per_clip": per_clip / MB,
        "benchmark": _benchmark(),
        "clips": clips,
        "samples": sum(asked.samples) or None,
        "design": design(config, asked.samples),
        "features_gb": None if clips is None else clips * per_clip / GB,
        "clips_at_once": at_once,
        "peak_memory_gb": peak_bytes(
            shape, point.images, point.tokens, size, text, at_once, str(point.model.get("attention", "sdpa"))
        )
        / GB,
        "warnings": warnings,
    }


def _benchmark() -> str | None:
    return HydraConfig.get().runtime.choices["benchmark"] if HydraConfig.initialized() else None


UNKNOWN = (
    "dtype", "visual_tokens", "context", "prefill_tflops", "tower_tflops", "projector_tflops", "kv_cache_gb",
    "weights_gb", "features_mb_per_clip", "features_gb", "clips_at_once", "peak_memory_gb",
)  # fmt: skip


def _row_of_api(config: DictConfig) -> dict[str, Any]:
    """The row of a point whose model is behind an API: only what this side knows."""
    model = str(config.model.name or plain(config.model)["model"])
    frames = int(build(config, "frames").num)
    pooling = build_pooling(config).label
    asked = benchmark_size(config)
    return {
        "point": re.sub(r"[^A-Za-z0-9.]+", "-", f"{model}-{pooling}-f{frames}").strip("-"),
        "model": model,
        "pooling": pooling,
        "stage": str(config.pooling.get("stage", "projector")),
        "frames": frames,
        "benchmark": _benchmark(),
        "clips": asked.clips,
        "samples": sum(asked.samples) or None,
        "design": design(config, asked.samples),
        "warnings": list(asked.warnings),
        **dict.fromkeys(UNKNOWN),
    }


def _store_size(config: DictConfig, model_size: int) -> int:
    """Bytes of a value in the feature store: of its own dtype if it has one, else the model's; 0: keeps nothing."""
    if config.features.get("_target_") == KEEPS_NOTHING:
        return 0
    dtype = config.features.get("dtype")
    return DTYPES[dtype].itemsize if dtype in DTYPES else model_size


def context_warnings(shape: ModelShape, tokens: int, text_tokens: int) -> list[str]:
    """What happens to a clip's tokens that the language model has no positions for."""
    length = tokens + text_tokens
    said = f"{tokens} visual tokens and {text_tokens} of text"
    if length > shape.context:
        return [f"{said} do not fit the context of {shape.context}: such a point fails"]
    if length > shape.rope_range:
        factor = f"{shape.rope_type} scaling by {shape.rope_factor:g}"
        return [f"{said} reach beyond the {shape.rope_range} positions that were trained, into RoPE's {factor}"]
    return []


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
    except USER_ERRORS as error:
        return Size(warnings=(str(error).splitlines()[0],))
    clips = len({(sample.clip, sample.start, sample.end) for sample in built.samples})
    counted = Counter(sample.clip_id for sample in built.samples if built.in_headline(sample.task))
    return Size(clips, tuple(counted.values()))
