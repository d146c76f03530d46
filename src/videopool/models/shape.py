"""A model's sizes: from its transformers configuration, or from the `shape:` block of a conf/model file.

No weights are needed for them, so a study can be planned on a machine that has neither weights nor network.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from videopool.models.configuration import TOWERS, model_config
from videopool.models.errors import ModelError
from videopool.models.families import FAMILIES, family_of
from videopool.models.sizes import ModelShape
from videopool.models.source import on_hub

TEXT_MODELS = ("llama", "mistral", "qwen2")
LISTED = 4  # differences named in an error


def model_shape(config: Any, target: str | None = None) -> ModelShape:
    """Sizes from a transformers configuration.

    Args:
        config: of a family's model.
        target: the user's class for the family, as family_of() takes it.

    Raises:
        ModelError: a family, language model or tower of a kind that is not supported.
    """
    family = family_of(config.model_type, target)
    text, vision = config.text_config, config.vision_config
    if text.model_type not in TEXT_MODELS:
        raise ModelError(f"language model {text.model_type!r} is not supported; supported: {', '.join(TEXT_MODELS)}")
    if vision.model_type not in TOWERS:
        raise ModelError(f"vision tower {vision.model_type!r} is not supported; supported: {', '.join(TOWERS)}")
    chosen = config.vision_feature_layer
    taken = [chosen] if isinstance(chosen, int) else list(chosen)
    depth = vision.num_hidden_layers
    image_size, patch = _side(vision.image_size), _side(vision.patch_size)
    rope = getattr(text, "rope_parameters", None) or {}
    return ModelShape(
        height=image_size // patch,
        width=image_size // patch,
        vision_dim=vision.hidden_size * len(taken),
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
        vision_layers_run=max(layer if layer >= 0 else depth + 1 + layer for layer in taken),
        feature_layers=len(taken),
        vision_heads=vision.num_attention_heads,
        vision_intermediate=vision.intermediate_size,
        patch=patch,
        image_size=image_size,
        cls=TOWERS[vision.model_type],
        pooling_head=bool(getattr(vision, "vision_use_head", False)),
        towers=len(set(family.towers.values())),
        separators=family.separators,
        newline=bool(family.newline),
        tied=bool(config.tie_word_embeddings),
        qkv_bias=text.model_type == "qwen2" or bool(getattr(text, "attention_bias", False)),
        projector_bias=bool(config.multimodal_projector_bias),
        rope_theta=float(rope.get("rope_theta") or 10000.0),
        rope_type=str(rope.get("rope_type", "default")),
        rope_factor=float(rope.get("factor") or 1.0),
        original_context=rope.get("original_max_position_embeddings"),
    )


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])


def shape_from(mapping: Mapping[str, Any], where: str = "model.shape", target: str | None = None) -> ModelShape:
    """Sizes from the `shape:` block of a conf/model file.

    Args:
        mapping: names of ModelShape's attributes and their values.
        where: the configuration key that errors name.
        target: the user's class for the family, as family_of() takes it.

    Raises:
        ModelError: unknown or missing keys, wrong kinds of values, or sizes that contradict each other.
    """
    if not isinstance(mapping, Mapping):
        raise ModelError(f"{where}: names and sizes are expected, got {mapping!r}")
    kinds = get_type_hints(ModelShape)
    # Those whose default is 0 only let older code leave them out; a file must say them.
    needed = [f.name for f in fields(ModelShape) if f.default is MISSING or (f.default == 0 and f.type is int)]
    needed += ["family", "text"]
    needed.remove("separators")
    unknown = [str(key) for key in mapping if key not in kinds]
    missing = [name for name in needed if name not in mapping]
    if unknown or missing:
        parts = [f"no such key: {', '.join(unknown)}"] if unknown else []
        parts += [f"missing: {', '.join(missing)}"] if missing else []
        raise ModelError(f"{where}: {'; '.join(parts)}")
    for name, value in mapping.items():
        _check_kind(f"{where}.{name}", value, kinds[name])
    if target is None and mapping["family"] not in FAMILIES:
        raise ModelError(f"{where}: family={mapping['family']!r}: choose one of {', '.join(FAMILIES)}")
    newline = bool(family_of(mapping["family"], target).newline)
    shape = ModelShape(**{"newline": newline, **{str(name): value for name, value in mapping.items()}})
    _check_sense(shape, where)
    return shape


def _check_kind(where: str, value: Any, kind: Any) -> None:
    if kind is bool:
        right, wanted = isinstance(value, bool), "true or false"
    elif kind is str:
        right, wanted = isinstance(value, str), "a word"
    elif kind is float:
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        wanted = "a positive number"
    else:
        low = 0 if where.endswith(".separators") else 1
        right = isinstance(value, int) and not isinstance(value, bool) and value >= low
        right = right or (value is None and kind is not int)
        wanted = f"a whole number of at least {low}"
    if not right:
        raise ModelError(f"{where} must be {wanted}, got {value!r}")


def _check_sense(shape: ModelShape, where: str) -> None:
    side = shape.image_size // shape.patch
    wrong = ""
    if shape.text not in TEXT_MODELS:
        wrong = f"text={shape.text!r}: choose one of {', '.join(TEXT_MODELS)}"
    elif (shape.height, shape.width) != (side, side):
        wrong = f"a view of {shape.image_size} pixels in patches of {shape.patch} makes a grid of {side} x {side}"
    elif shape.vision_layers_run > shape.vision_layers:
        wrong = f"vision_layers_run={shape.vision_layers_run} is more than vision_layers={shape.vision_layers}"
    elif shape.heads % shape.kv_heads:
        wrong = f"heads={shape.heads} is no multiple of kv_heads={shape.kv_heads}"
    if wrong:
        raise ModelError(f"{where}: {wrong}")


def point_shape(model: Mapping[str, Any]) -> ModelShape:
    """Sizes of the model of a point: from its `shape:` block, or from the source's config.json.

    A folder's own config.json counts more than the block, which describes the released model.

    Args:
        model: the resolved configuration group `model`: source, and optionally revision, shape, rope_factor.

    Raises:
        ModelError: neither is there, or it is of a kind that is not supported.
    """
    block = model.get("shape")
    if block is not None and on_hub(str(model["source"])):
        return shape_from(block, target=model.get("_target_")).stretched(model.get("rope_factor"))
    return own_shape(model)


def own_shape(model: Mapping[str, Any]) -> ModelShape:
    """Sizes of the model of a point from its own config.json, whatever its `shape:` block says.

    Raises:
        ModelError: as load_config() and model_shape().
    """
    return model_shape(model_config(model), model.get("_target_"))


def shape_differences(told: ModelShape, found: ModelShape) -> str:
    """In what a model's own configuration differs from its conf/model file: the first few sizes, or ""."""
    wrong = [f.name for f in fields(ModelShape) if getattr(told, f.name) != getattr(found, f.name)]
    return "; ".join(f"{key}={getattr(told, key)}, found {getattr(found, key)}" for key in wrong[:LISTED])
