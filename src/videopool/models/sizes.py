"""The sizes of a model, which are known without its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from videopool.models.errors import ModelError, is_number

STRETCHING = ("linear",)  # types of RoPE scaling that multiply the trained range by a factor


@dataclass(frozen=True)
class ModelShape:
    """Sizes that a model's configuration states. A tower is the vision tower, an LLM the language model."""

    height: int  # of the patch grid, after the family's own merging of patches
    width: int
    vision_dim: int  # before the projector, of merged patches side by side
    dim: int  # after the projector
    context: int  # positions of the LLM, RoPE scaling included
    layers: int  # of the LLM, as the next five
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    family: str = "llava"  # model type, as in FAMILIES
    text: str = "llama"  # kind of LLM: "llama", "mistral", "qwen2" or "qwen3"
    vision_layers: int = 0  # layers of the tower that have weights
    vision_layers_run: int = 0  # layers of the tower up to the (last) feature layer
    feature_layers: int = 1  # layers of the tower that are concatenated in vision_dim
    levels: int = 0  # further layers of the tower that DeepStack adds to the LLM's first layers
    vision_heads: int = 0
    vision_intermediate: int = 0
    patch: int = 0  # side in pixels
    image_size: int = 0  # side of the tower's input in pixels
    merge: int = 1  # the tower's patches on a side that the family puts side by side into one of the grid
    together: int = 1  # frames that are one view of the tower, and one moment of the grid
    mrope: bool = False  # positions have three axes: time, row, column
    by_clip: bool = False  # views have their clip's proportions; height, width, image_size are those that are assumed
    cls: bool = True  # the tower puts a CLS token before the patches (CLIP and DINOv2 do, SigLIP does not)
    window: int = 0  # patches on a side of the windows in which most of the tower's blocks attend; 0: none do
    whole_blocks: int = 0  # of these towers, blocks that attend over the whole frame
    tower_positions: int | None = None  # learned positions of a tower that interpolates them; None: one for each patch
    layer_scale: bool = False  # the tower's blocks scale what they add, as DINOv2's do
    pooling_head: bool = False  # the tower's weights include SigLIP's pooling head; features do not need it
    tower: str = ""  # kind of tower; "": CLIP or, without CLS, SigLIP
    towers: int = 1  # 2 where videos and images have one each
    separators: int = 0  # tokens that the family puts after a clip's visual tokens
    row_newlines: bool = False  # a newline token ends each row of patches
    frame_text: int = 0  # tokens of text that the family writes between two frames, about
    newline: bool = False  # the weights include a newline token
    tied: bool = False  # word embeddings and output layer share one matrix
    qkv_bias: bool = False  # queries, keys and values have biases
    projector_bias: bool = True  # the projector's layers have biases
    projector_layers: int = 2
    projector_width: int | None = None  # between its layers; None: as behind them
    projector_norm: bool = False  # a norm precedes its layers
    rope_theta: float = 10000.0
    rope_type: str = "default"
    rope_factor: float = 1.0
    original_context: int | None = None  # positions before RoPE scaling, where the configuration states them

    @property
    def tower_dim(self) -> int:
        """Width of the tower."""
        return self.vision_dim // self.feature_layers // self.merge**2

    @property
    def patches(self) -> int:
        """The tower's patches of a frame."""
        return self.height * self.width * self.merge**2

    @property
    def tower_rows(self) -> int:
        """Patches of a frame in the tower, and the CLS token."""
        return self.patches + self.cls

    @property
    def spreads(self) -> bool:
        """Whether something stands between the tokens of a clip."""
        return self.row_newlines or self.frame_text > 0

    @property
    def rope_range(self) -> int:
        """Positions that the language model was trained on, without RoPE scaling."""
        if self.original_context is not None:
            return self.original_context
        return int(self.context / self.rope_factor) if self.rope_type in STRETCHING else self.context

    def stretched(self, factor: float | None) -> "ModelShape":
        """The same with linear RoPE scaling by a factor; None changes nothing. Raises ModelError as check_stretch()."""
        if factor is None:
            return self
        check_stretch(factor, self.rope_type)
        return replace(self, context=int(self.context * factor), rope_type="linear", rope_factor=float(factor))


def check_stretch(factor: Any, rope_type: str) -> None:
    """Raises ModelError for a factor below 1, or a model that scales its positions already."""
    if not is_number(factor) or factor < 1:
        raise ModelError(f"model.rope_factor={factor!r}: give a number of at least 1, or null")
    if rope_type != "default":
        raise ModelError(f"model.rope_factor={factor}: the model scales its positions already ({rope_type})")


def feature_layers(config: Any) -> list[int]:
    """The tower's layers that a configuration takes features from."""
    layer = getattr(config, "vision_feature_layer", -1)
    return [layer] if isinstance(layer, int) else list(layer)


@dataclass(frozen=True)
class Pruning:
    """After `layer`, counted from 1, a share of each clip's pooled tokens stays, rounded down, at least 1."""

    layer: int
    share: float

    @classmethod
    def read(cls, group: Mapping[str, Any]) -> "Pruning | None":
        """The group `pruning`; None without both. Raises ModelError for one alone, or a wrong number."""
        layer, share = group["layer"], group["share"]
        if layer is None and share is None:
            return None
        if not is_number(layer) or isinstance(layer, float) or layer < 1:
            raise ModelError(f"pruning.layer must be a whole number of at least 1, got {layer!r}")
        if not is_number(share) or not 0 < share <= 1:
            raise ModelError(f"pruning.share must be a number above 0 and at most 1, got {share!r}")
        return cls(layer, float(share))

    def kept(self, tokens: int) -> int:
        return min(tokens, max(1, int(self.share * tokens)))

    @property
    def label(self) -> str:
        """In tables and names of folders."""
        return f"fastv {self.layer} {self.share:g}"
