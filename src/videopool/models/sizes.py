"""The sizes of a model, which are known without its weights."""

from dataclasses import dataclass, replace

from videopool.models.errors import ModelError

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
        family: the model type, as in FAMILIES.
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
        newline: the weights include a newline token.
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
    newline: bool = False
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
