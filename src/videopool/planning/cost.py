"""The cost of one point."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.config.build import number
from videopool.inference.read_plan import clips_at_once
from videopool.models import ModelShape, cost
from videopool.models.configuration import DTYPES
from videopool.planning.size import benchmark_size, design
from videopool.points.setting import Setting, StatedSetting, readable

MB, GB, TERA = 1e6, 1e9, 1e12
KEEPS_NOTHING = "videopool.features.FeatureStore"
# Of a model behind an API, only some are known.
COLUMNS = (
    "point", "model", "dtype", "pooling", "stage", "frames", "visual_tokens", "context", "prefill_tflops",
    "tower_tflops", "projector_tflops", "kv_cache_gb", "weights_gb", "features_mb_per_clip", "benchmark", "clips",
    "samples", "design", "features_gb", "clips_at_once", "peak_memory_gb", "warnings",
)  # fmt: skip


def cost_of(config: DictConfig) -> dict[str, Any]:
    """A point's row (COLUMNS): settings, operations per clip (1e12), memory and disk (1e9 bytes), warnings.

    Operations and KV cache are for one clip; peak memory is for as many clips as job=evaluate reads at once. The cache
    and the peak include the text, the operations do not.
    """
    point: Setting
    costs: dict[str, Any] = {"warnings": []}
    if "base_url" in config.model:
        point, asked = Setting(config), benchmark_size(config)
        model = str(config.model.name or point.model["model"])
        name = readable(model, point.pooling.label, f"f{point.frames}")
    else:
        point = stated = StatedSetting(config)
        asked = benchmark_size(config)
        model, name, costs = stated.model_name, stated.name, _costs(config, stated, asked.clips)
    return {
        **dict.fromkeys(COLUMNS),
        **costs,
        "point": name,
        "model": model,
        "pooling": point.pooling.label,
        "stage": point.stage,
        "frames": point.frames,
        "benchmark": HydraConfig.get().runtime.choices["benchmark"] if HydraConfig.initialized() else None,
        "clips": asked.clips,
        "samples": sum(asked.samples) or None,
        "design": design(config, asked.samples),
        "warnings": [*costs["warnings"], *asked.warnings],
    }


def _costs(config: DictConfig, point: StatedSetting, clips: int | None) -> dict[str, Any]:
    """Costs of a point whose model runs here."""
    shape, size, tokens = point.shape, point.bytes_per_value, point.visual_tokens
    text = number(config, "job.text_tokens", 0, whole=True)
    for key in ("job.max_visual_tokens", "job.max_clips"):
        number(config, key, 1, whole=True)
    at_once = clips_at_once(config.job, tokens)
    attention = str(point.model.get("attention", "sdpa"))
    per_clip = point.images * cost.feature_bytes(shape, _store_size(config, size))
    return {
        "dtype": point.model["dtype"],
        "visual_tokens": tokens,
        "context": shape.context,
        "prefill_tflops": cost.prefill_flops(shape, tokens) / TERA,
        "tower_tflops": cost.tower_flops(shape, point.images) / TERA,
        "projector_tflops": cost.projector_flops(shape, point.projected) / TERA,
        "kv_cache_gb": cost.kv_cache_bytes(shape, tokens + text, size) / GB,
        "weights_gb": cost.weight_bytes(shape, size) / GB,
        "features_mb_per_clip": per_clip / MB,
        "features_gb": None if clips is None else clips * per_clip / GB,
        "clips_at_once": at_once,
        "peak_memory_gb": cost.peak_bytes(shape, point.images, tokens, size, text, at_once, attention) / GB,
        "warnings": _context_warnings(shape, tokens, text),
    }


def _store_size(config: DictConfig, model_size: int) -> int:
    """Bytes per value in the feature store: in its own dtype, else in the model's; 0 without a store."""
    if config.features.get("_target_") == KEEPS_NOTHING:
        return 0
    dtype = config.features.get("dtype")
    return DTYPES[dtype].itemsize if dtype in DTYPES else model_size


def _context_warnings(shape: ModelShape, tokens: int, text_tokens: int) -> list[str]:
    """Warnings of a clip that exceeds the language model's context or its trained positions."""
    length = tokens + text_tokens
    parts = f"{tokens} visual tokens and {text_tokens} of text"
    if length > shape.context:
        return [f"{parts} do not fit the context of {shape.context}: such a point fails"]
    if length > shape.rope_range:
        factor = f"{shape.rope_type} scaling by {shape.rope_factor:g}"
        return [f"{parts} reach beyond the {shape.rope_range} positions that were trained, into RoPE's {factor}"]
    return []
