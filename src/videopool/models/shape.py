"""A model's sizes: from its transformers configuration, or from the `shape:` block of a conf/model file.

No weights are needed for them, so a study can be planned on a machine that has neither weights nor network.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, get_type_hints

from videopool.models.errors import ModelError
from videopool.models.source import on_hub

TEXT_MODELS = ("llama", "mistral", "qwen2")
TOWERS = {"clip_vision_model": True, "siglip_vision_model": False}  # whether a CLS token stands before the patches
FAMILY_TOWERS = {"llava": 1, "llava_next": 1, "llava_onevision": 1, "video_llava": 2}
FAMILY_SEPARATORS = {"llava": 0, "llava_next": 0, "llava_onevision": 1, "video_llava": 0}
LISTED = 4  # differences named in an error
# Types of RoPE scaling that stretch the range they were trained on by a factor.
STRETCHING = ("linear", "dynamic")


@dataclass(frozen=True)
class ModelShape:
    """Sizes that are known from a model's configuration, without its weights.

    Attributes:
        height, width: of the patch grid.
        vision_dim, dim: before and after the projector.
        context: positions that the language model takes, RoPE scaling included.
        layers, heads, kv_heads, head_dim, intermediate, vocabulary: of the language model.
        family: "llava", "llava_next", "llava_onevision" or "video_llava".
        text: kind of language model: "llama", "mistral" or "qwen2".
        vision_layers: of the tower, as many as there are weights for.
        vision_layers_run: of the tower, up to the (last) feature layer.
        feature_layers: how many of the tower's layers stand side by side in vision_dim.
        vision_heads, vision_intermediate: of the tower.
        patch, image_size: sides in pixels of a patch and of the view that the tower takes.
        cls: the tower puts a CLS token before the patches (CLIP does, SigLIP does not).
        pooling_head: the tower's weights include SigLIP's pooling head, which is not used here.
        towers: 2 where videos and images have one each.
        separators: tokens that the family puts behind a clip's visual tokens.
        tied: word embeddings and output layer are one matrix.
        qkv_bias: queries, keys and values have biases.
        projector_bias: both layers of the projector have biases.
        rope_theta, rope_type, rope_factor: of the rotary positions.
        original_context: positions before RoPE scaling, where the configuration says so.
    """

    height: int
    width: int
    vision_dim: int
    dim: int
    context: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    family: str = "llava"
    text: str = "llama"
    vision_layers: int = 0
    vision_layers_run: int = 0
    feature_layers: int = 1
    vision_heads: int = 0
    vision_intermediate: int = 0
    patch: int = 0
    image_size: int = 0
    cls: bool = True
    pooling_head: bool = False
    towers: int = 1
    separators: int = 0
    tied: bool = False
    qkv_bias: bool = False
    projector_bias: bool = True
    rope_theta: float = 10000.0
    rope_type: str = "default"
    rope_factor: float = 1.0
    original_context: int | None = None

    @property
    def tower_dim(self) -> int:
        """Width of the tower; vision_dim holds feature_layers of them."""
        return self.vision_dim // self.feature_layers

    @property
    def rope_range(self) -> int:
        """Positions that the language model was trained on, without RoPE scaling."""
        if self.original_context is not None:
            return self.original_context
        return int(self.context / self.rope_factor) if self.rope_type in STRETCHING else self.context

    def stretched(self, factor: float | None) -> "ModelShape":
        """The same with linear RoPE scaling by a factor; None leaves it as it is.

        Raises:
            ModelError: a factor below 1, or a model that scales its positions already.
        """
        if factor is None:
            return self
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor < 1:
            raise ModelError(f"model.rope_factor={factor!r}: give a number of at least 1, or null")
        if self.rope_type != "default":
            raise ModelError(f"model.rope_factor={factor}: the model scales its positions already ({self.rope_type})")
        return replace(self, context=int(self.context * factor), rope_type="linear", rope_factor=float(factor))


def model_shape(config: Any) -> ModelShape:
    """Sizes from a transformers configuration of one of the four families.

    Raises:
        ModelError: a language model or tower of a kind that is not supported.
    """
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
    family = config.model_type
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
        family=family,
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
        towers=FAMILY_TOWERS.get(family, 1),
        separators=FAMILY_SEPARATORS.get(family, 0),
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


def shape_from(mapping: Mapping[str, Any], where: str = "model.shape") -> ModelShape:
    """Sizes from the `shape:` block of a conf/model file.

    Args:
        mapping: names of ModelShape's attributes and their values.
        where: the configuration key that errors name.

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
    shape = ModelShape(**{str(name): value for name, value in mapping.items()})
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
    if shape.family not in FAMILY_TOWERS:
        wrong = f"family={shape.family!r}: choose one of {', '.join(FAMILY_TOWERS)}"
    elif shape.text not in TEXT_MODELS:
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
    source, factor = str(model["source"]), model.get("rope_factor")
    block = model.get("shape")
    if block is not None and on_hub(source):
        return shape_from(block).stretched(factor)
    # Not needed by whoever has a block; and loading imports this module.
    from videopool.models import load_config

    return model_shape(load_config(source, model.get("revision"))).stretched(factor)


def shape_differences(told: ModelShape, found: ModelShape) -> str:
    """In what a model's own configuration differs from its conf/model file: the first few sizes, or ""."""
    wrong = [f.name for f in fields(ModelShape) if getattr(told, f.name) != getattr(found, f.name)]
    return "; ".join(f"{key}={getattr(told, key)}, found {getattr(found, key)}" for key in wrong[:LISTED])
