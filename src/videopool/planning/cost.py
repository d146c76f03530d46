"""What one point would cost."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.config.build import number
from videopool.inference.batches import clips_at_once
from videopool.models import ModelShape
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
from videopool.planning.power import design
from videopool.planning.size import benchmark_size
from videopool.points.setting import Setting, StatedSetting, readable

MB, GB = 1e6, 1e9


KEEPS_NOTHING = "videopool.features.FeatureStore"


def cost_of(config: DictConfig) -> dict[str, Any]:
    """A point's row: what it is, operations per clip (1e12), memory and disk (1e9 bytes), warnings.

    Operations and key-value cache are those of one clip; peak memory is that of as many clips as job=evaluate
    reads at once. The cache and the peak include the text, the prefill's operations do not.
    """
    if "base_url" in config.model:
        return _row_of_api(config)
    point = StatedSetting(config)
    shape, size = point.shape, point.bytes_per_value
    text = number(config, "job.text_tokens", 0, whole=True)
    for key in ("job.max_visual_tokens", "job.max_clips"):
        number(config, key, 1, whole=True)
    at_once = clips_at_once(config.job, point.visual_tokens)
    asked = benchmark_size(config)
    clips = asked.clips
    per_clip = point.images * feature_bytes(shape, _store_size(config, size))
    warnings = [*context_warnings(shape, point.visual_tokens, text), *asked.warnings]
    return {
        "point": point.name,
        "model": point.model_name,
        "dtype": point.model["dtype"],
        "pooling": point.pooling.label,
        "stage": point.stage,
        "frames": point.frames,
        "visual_tokens": point.visual_tokens,
        "context": shape.context,
        "prefill_tflops": prefill_flops(shape, point.visual_tokens) / 1e12,
        "tower_tflops": tower_flops(shape, point.images) / 1e12,
        "projector_tflops": projector_flops(shape, point.projected) / 1e12,
        "kv_cache_gb": kv_cache_bytes(shape, point.visual_tokens + text, size) / GB,
        "weights_gb": weight_bytes(shape, size) / GB,
        "features_mb_per_clip": per_clip / MB,
        "benchmark": _benchmark(),
        "clips": clips,
        "samples": sum(asked.samples) or None,
        "design": design(config, asked.samples),
        "features_gb": None if clips is None else clips * per_clip / GB,
        "clips_at_once": at_once,
        "peak_memory_gb": peak_bytes(
            shape, point.images, point.visual_tokens, size, text, at_once, str(point.model.get("attention", "sdpa"))
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
    point = Setting(config)
    model = str(config.model.name or point.model["model"])
    asked = benchmark_size(config)
    return {
        "point": readable(model, point.pooling.label, f"f{point.frames}"),
        "model": model,
        "pooling": point.pooling.label,
        "stage": point.stage,
        "frames": point.frames,
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
