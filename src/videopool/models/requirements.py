"""What a config.json must say of the families whose positions, windows and merging follow from it.

Where it says nothing or something impossible, transformers assumes other numbers, rounds, or fails at the first clip.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from videopool.models.errors import is_number

AXES = 3  # of positions: time, row, column
# Settings of towers that are counts or sides.
WHOLE = ("patch_size", "spatial_merge_size", "window_size", "num_position_embeddings")


def misstated(config: Any, content: Mapping[str, Any], mrope: bool) -> str:
    """The first setting of a configuration that is missing or impossible, or ""; `content` is its config.json.

    mrope: positions have three axes.
    """
    text, vision = config.text_config, config.vision_config
    rope = getattr(text, "rope_parameters", None) or {}
    if (theta := rope.get("rope_theta")) is not None and not (is_number(theta) and theta > 1):
        return f"text_config: rope_theta={theta!r}: give a number above 1"
    if (part := rope.get("partial_rotary_factor", 1)) not in (None, 1):
        return f"text_config: partial_rotary_factor={part!r}: no supported language model turns a part of a head; say 1"
    for name in WHOLE:
        size = getattr(vision, name, 1)
        if not all(_is_whole(side) for side in (size if isinstance(size, (list, tuple)) else [size])):
            return f"vision_config: {name}={size!r}: give a whole number of at least 1"
    if vision.hidden_size % (heads := vision.num_attention_heads):
        return f"vision_config: {heads} heads cannot share a width of {vision.hidden_size}"
    return _token(config, mrope) or _merging(config) or _windows(vision) or (_three(config, content) if mrope else "")


def _is_whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and is_number(value) and value >= least


def _token(config: Any, mrope: bool) -> str:
    """Of the tokens that stand for media. Other families' may be behind the vocabulary: they are never embedded."""
    words = int(config.text_config.vocab_size)
    for name in ("image_token_id", "video_token_id"):
        number: Any = getattr(config, name, None)
        if number is not None and not (_is_whole(number, 0) and (number < words or not mrope)):
            return f"{name}={number!r}: the vocabulary has tokens 0..{words - 1}"
    return ""


def _merging(config: Any) -> str:
    """Of the patches that become one of the grid."""
    ratio, factor = getattr(config, "downsample_ratio", 1.0), getattr(config, "scale_factor", 1)
    if not is_number(ratio) or not 0 < ratio <= 1 or abs(1 / ratio - round(1 / ratio)) > 1e-6:
        return f"downsample_ratio={ratio!r}: give 1 over a whole number, as 0.5"
    return "" if _is_whole(factor) else f"scale_factor={factor!r}: give a whole number of at least 1"


def _windows(vision: Any) -> str:
    """Of a tower's windows and its learned positions."""
    unit = vision.patch_size * vision.spatial_merge_size if hasattr(vision, "spatial_merge_size") else 1
    if (side := getattr(vision, "window_size", unit)) % unit:
        return f"vision_config: window_size={side}: give a multiple of {unit} pixels, a patch of the grid"
    blocks, depth = getattr(vision, "fullatt_block_indexes", None), vision.num_hidden_layers
    if blocks is not None and not all(_is_whole(block, 0) and block < depth for block in blocks):
        return f"vision_config: fullatt_block_indexes={list(blocks)}: the tower has blocks 0..{depth - 1}"
    places = getattr(vision, "num_position_embeddings", 1)
    square = isqrt(places) ** 2 == places
    return "" if square else f"vision_config: num_position_embeddings={places}: they fill no square"


def _three(config: Any, content: Mapping[str, Any]) -> str:
    """Of positions with three axes, which share the pairs of a head's dimensions."""
    text, rope = config.text_config, config.text_config.rope_parameters or {}
    own = content.get("text_config") or content  # older files have one level
    stated = [own, own.get("rope_parameters") or {}, own.get("rope_scaling") or {}]
    if not any("rope_theta" in part for part in stated):
        return f"text_config: rope_theta is missing, and transformers assumes {rope.get('rope_theta')}; state it"
    pairs = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
    section = rope.get("mrope_section")
    if section is None:
        return f"text_config: mrope_section is missing: say how {pairs} pairs are shared by time, row and column"
    shares = isinstance(section, (list, tuple)) and len(section) == AXES and all(map(_is_whole, section))
    if not shares or sum(section) != pairs:
        return f"text_config: mrope_section={section}: give {AXES} whole numbers with a sum of {pairs}, half a head"
    interleaved = config.model_type == "qwen3_vl"
    if rope.get("mrope_interleaved", interleaved) != interleaved:
        return (
            f"text_config: mrope_interleaved={rope['mrope_interleaved']}: {config.model_type} has {interleaved}, and "
            "transformers computes nothing else"
        )
    if not hasattr(config.vision_config, "tokens_per_second"):
        return ""
    rate = config.vision_config.tokens_per_second
    if "tokens_per_second" not in (content.get("vision_config") or {}):
        return f"vision_config: tokens_per_second is missing, and transformers assumes {rate}; state it"
    return "" if is_number(rate) and rate > 0 else f"vision_config: tokens_per_second={rate!r}: give a number above 0"
