"""A model's sizes: from its transformers configuration, or from the `shape:` block of a conf/model file.

They need no weights, so a study can be planned on a machine that has neither weights nor network.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, get_type_hints

from videopool.models.configuration import TOWERS, check_frame_size, keeps_proportions, model_config, side_of
from videopool.models.errors import LISTED, ModelError, is_number
from videopool.models.families import FAMILIES, family_of, kind_of
from videopool.models.sizes import ModelShape, feature_layers
from videopool.models.source import on_hub

# Sizes that a file may leave out, and that may be 0.
NONE_BY_DEFAULT = ("separators", "frame_text", "levels", "window", "whole_blocks")
TEXT_MODELS = ("llama", "mistral", "qwen2", "qwen3", "qwen2_5_vl_text", "qwen3_vl_text")


def model_shape(config: Any, target: str | None = None) -> ModelShape:
    """Sizes from a transformers configuration; target as in family_of().

    Raises ModelError if the family, or the kind of language model or tower, is not supported.
    """
    family = family_of(kind_of(config), target)
    text, vision = config.text_config, config.vision_config
    if text.model_type not in TEXT_MODELS:
        raise ModelError(f"language model {text.model_type!r} is not supported; supported: {', '.join(TEXT_MODELS)}")
    if vision.model_type not in TOWERS:
        raise ModelError(f"vision tower {vision.model_type!r} is not supported; supported: {', '.join(TOWERS)}")
    layers, depth = feature_layers(config), vision.num_hidden_layers
    sides = (vision.image_size, vision.patch_size)
    image_size, patch = (int(side if isinstance(side, int) else side[0]) for side in sides)
    merge = family.merged(config)
    side = image_size // patch // merge
    rope = getattr(text, "rope_parameters", None) or {}
    return ModelShape(
        height=side,
        width=side,
        vision_dim=vision.hidden_size * len(layers) * merge**2,
        dim=text.hidden_size,
        context=text.max_position_embeddings,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        family=family.model_type,
        text=text.model_type,
        vision_layers=depth,
        # Hidden state 0 is the embeddings, and -1 the output of the last layer.
        vision_layers_run=max(layer if layer >= 0 else depth + 1 + layer for layer in layers),
        feature_layers=len(layers),
        levels=len(getattr(vision, "deepstack_visual_indexes", ())),
        vision_heads=vision.num_attention_heads,
        vision_intermediate=getattr(vision, "intermediate_size", None) or int(vision.hidden_size * vision.mlp_ratio),
        patch=patch,
        merge=merge,
        together=family.together,
        mrope=family.mrope,
        by_clip=bool(getattr(vision, "by_clip", False)),
        image_size=image_size,
        cls=TOWERS[vision.model_type],
        window=getattr(vision, "window_size", 0) // patch,
        whole_blocks=len(getattr(vision, "fullatt_block_indexes", ())),
        tower_positions=getattr(vision, "num_position_embeddings", None),
        layer_scale=hasattr(vision, "layerscale_value"),
        pooling_head=bool(getattr(vision, "vision_use_head", False)),
        tower=family.tower_kind,
        towers=len(set(family.towers.values())),
        separators=family.separators,
        row_newlines=family.row_newlines,
        frame_text=family.frame_text,
        newline=bool(family.newline),
        tied=bool(config.tie_word_embeddings),
        qkv_bias=text.model_type in ("qwen2", "qwen2_5_vl_text") or bool(getattr(text, "attention_bias", False)),
        projector_bias=bool(getattr(config, "multimodal_projector_bias", family.projector_bias)),
        projector_layers=family.projector_layers,
        projector_norm=family.projector_norm,
        projector_width=family.inner_width(vision.hidden_size * merge**2),
        rope_theta=float(rope.get("rope_theta") or 10000.0),
        rope_type=str(rope.get("rope_type", "default")),
        rope_factor=float(rope.get("factor") or 1.0),
        original_context=rope.get("original_max_position_embeddings"),
    )


def shape_from(mapping: Mapping[str, Any], where: str = "model.shape", target: str | None = None) -> ModelShape:
    """Sizes from the `shape:` block of a conf/model file; errors name the key `where`, target is as in family_of().

    Raises ModelError for unknown or missing keys, wrong kinds of values, or sizes that contradict each other.
    """
    if not isinstance(mapping, Mapping):
        raise ModelError(f"{where}: names and sizes are expected, got {mapping!r}")
    kinds = get_type_hints(ModelShape)
    # A default of 0 serves older code alone; a file must state the size.
    needed = [f.name for f in fields(ModelShape) if f.default is MISSING or (f.default == 0 and f.type is int)]
    needed += ["family", "text"]
    needed = [name for name in needed if name not in NONE_BY_DEFAULT]
    unknown = [str(key) for key in mapping if key not in kinds]
    missing = [name for name in needed if name not in mapping]
    wrong = (("no such key", unknown), ("missing", missing))
    if problems := [f"{problem}: {', '.join(names)}" for problem, names in wrong if names]:
        raise ModelError(f"{where}: {'; '.join(problems)}")
    for name, value in mapping.items():
        if wanted := _wanted(name, value, kinds[name]):
            raise ModelError(f"{where}.{name} must be {wanted}, got {value!r}")
    if target is None and mapping["family"] not in FAMILIES:
        raise ModelError(f"{where}: family={mapping['family']!r}: choose one of {', '.join(FAMILIES)}")
    newline = bool(family_of(mapping["family"], target).newline)
    shape = ModelShape(**{"newline": newline, **{str(name): value for name, value in mapping.items()}})
    if problem := _contradiction(shape):
        raise ModelError(f"{where}: {problem}")
    return shape


def _wanted(name: str, value: Any, kind: Any) -> str:
    """The kind of value that a size must have, or "" if the value is one."""
    if kind in (bool, str):
        return "" if isinstance(value, kind) else "true or false" if kind is bool else "a word"
    if kind is float:
        return "" if is_number(value) and value > 0 else "a positive number"
    low = 0 if name in NONE_BY_DEFAULT else 1
    if (value is None and kind is not int) or (isinstance(value, int) and is_number(value) and value >= low):
        return ""
    return f"a whole number of at least {low}"


def _contradiction(shape: ModelShape) -> str:
    """How sizes contradict each other, or ""."""
    side = shape.image_size // shape.patch // shape.merge
    if shape.text not in TEXT_MODELS:
        return f"text={shape.text!r}: choose one of {', '.join(TEXT_MODELS)}"
    if (shape.height, shape.width) != (side, side):
        merged = f", {shape.merge} x {shape.merge} merged," if shape.merge > 1 else ""
        return (
            f"a view of {shape.image_size} pixels in patches of {shape.patch}{merged} makes a grid of {side} x {side}"
        )
    if shape.vision_layers_run > shape.vision_layers:
        return f"vision_layers_run={shape.vision_layers_run} is more than vision_layers={shape.vision_layers}"
    return f"heads={shape.heads} is no multiple of kv_heads={shape.kv_heads}" if shape.heads % shape.kv_heads else ""


def point_shape(model: Mapping[str, Any]) -> ModelShape:
    """Sizes of a point's model, given as the group `model`: from its `shape:` block, or from the source's config.json.

    A folder's own config.json overrides the block, which describes the released model. Raises ModelError if neither
    exists, or its kind is not supported.
    """
    block = model.get("shape")
    if block is not None and on_hub(str(model["source"])):
        return stated_shape(model)
    return own_shape(model)


def stated_shape(model: Mapping[str, Any]) -> ModelShape:
    """Sizes from the `shape:` block of the group `model`, and its other settings. Raises ModelError as shape_from()."""
    target, size = model.get("_target_"), model.get("frame_size")
    shape = shape_from(model["shape"], target=target).stretched(model.get("rope_factor"))
    unit = shape.patch * shape.merge
    check_frame_size(size, unit if family_of(shape.family, target).frame_size else 0, shape.image_size)
    if size is None:
        return shape
    side = side_of(size, shape.image_size, unit)
    cells = side // unit
    return replace(shape, image_size=side, height=cells, width=cells, by_clip=keeps_proportions(size))


def own_shape(model: Mapping[str, Any]) -> ModelShape:
    """Sizes from the model's own config.json, without its `shape:` block. Raises ModelError as model_shape()."""
    return model_shape(model_config(model), model.get("_target_"))


def shape_differences(stated: ModelShape, own: ModelShape) -> str:
    """The first few sizes in which a conf/model file differs from the model's own configuration; "" if none."""
    names = [f.name for f in fields(ModelShape) if getattr(stated, f.name) != getattr(own, f.name)]
    return "; ".join(f"{name}={getattr(stated, name)}, found {getattr(own, name)}" for name in names[:LISTED])
