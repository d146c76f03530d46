"""The cost of reading clips, from a model's sizes alone.

Operations are floating-point ones, two per multiply-add, of matrix products; norms, activations, softmax and rotary
embeddings are left out. Bytes are exact where a docstring does not say "estimate". T frames make H x W patches each;
L counts the language model's positions, the family's separators included.
"""

from collections.abc import Callable

from videopool.models.backbone import VISION_CHUNK
from videopool.models.sizes import ModelShape, Pruning

FLOAT32 = 4  # bytes
# Most positions of a clip's questions that are read at once, as attention among them is wasted; with the answers, where
# they are generated: each token takes a pass, so that more questions at once are worth more.
LIKELY, GENERATED = 1024, 4096


def prefill_flops(shape: ModelShape, tokens: int, cached: int = 0) -> float:
    """Floating-point operations of the language model's forward pass over L = tokens positions, after C cached ones.

    Each layer takes 2 * L * (weights of the attention projections and of the three matrices of the gated MLP), and
    4 * L * (C + L) * heads * head_dim for scores and their weighted sum over the full rectangle, as counters of
    attention kernels have it (a causal kernel may skip up to half of L x L). The vocabulary is left out.
    """
    return sum(_flops(shape, tokens, cached))


def layer_mean_tokens(shape: ModelShape, tokens: int, pruning: Pruning | None = None) -> float:
    """Visual tokens, separators included, that a layer of the language model reads, mean over its layers."""
    return pruned(shape, tokens, pruning, float)


def prefix_flops(shape: ModelShape, tokens: int, pruning: Pruning | None = None, text: int = 0) -> float:
    """prefill_flops() of a clip's visual tokens, separators included, and one question of so many tokens on it."""
    return pruned(shape, tokens, pruning, lambda count: prefill_flops(shape, count + text))


def pruned(shape: ModelShape, tokens: int, pruning: Pruning | None, cost: Callable[[int], float]) -> float:
    """A cost of all layers alike, by visual tokens, where the layers after pruning read fewer of them."""
    if pruning is None or tokens <= shape.separators:
        return cost(tokens)
    kept = pruning.kept(tokens - shape.separators) + shape.separators
    return cost(kept) + pruning.layer / shape.layers * (cost(tokens) - cost(kept))


def _flops(shape: ModelShape, tokens: int, cached: int = 0) -> tuple[float, float]:
    """Floating-point operations of all layers' matrices, and of their attention."""
    matrices = shape.layers * 2 * tokens * _layer_weights(shape)
    return float(matrices), float(shape.layers * 4 * tokens * (cached + tokens) * shape.heads * shape.head_dim)


def _layer_weights(shape: ModelShape) -> int:
    """Weights of the matrices in one layer of the language model."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return shape.dim * (2 * queries + 2 * keys) + 3 * shape.dim * shape.intermediate


def training_flops(shape: ModelShape, tokens: int, projected: int, again: bool = False) -> float:
    """Floating-point operations of a training step on one conversation over L = tokens positions, text included.

    The backward pass of the frozen language model needs gradients of its matrices' inputs, none of the matrices: as
    many operations as the forward pass, and twice as many for attention, whose two products both have gradients on both
    sides. The projector, which reads so many projected tokens, needs both. With gradient checkpointing (again) each
    layer runs forward a second time, up to its last matrix. Not counted: the tower (its features exist), LoRA's
    matrices, the vocabulary.
    """
    matrices, attention = _flops(shape, tokens)
    llm = (2 + again) * matrices + (3 + again) * attention
    last = 2 * shape.layers * tokens * shape.intermediate * shape.dim
    projector = projector_flops(shape, projected)
    return llm - again * last + projector + 2 * projector / (1 + shape.levels)  # DeepStack's stay as they are


def tower_flops(shape: ModelShape, frames: int, registers: int = 0) -> float:
    """Floating-point operations of the vision tower on T = frames frames, up to the feature layer.

    With P = H * W positions (M^2 as many of a family that merges M x M patches; more with CLS and registers) of width D
    and an MLP of width I, a frame takes 2 * 3 * patch^2 * D for each patch, and per layer
    2 * P * (4 * D^2 + 2 * D * I) + 4 * P^2 * D; blocks with windows take the pairs within them for P^2.
    """
    patches, positions, width = shape.patches, shape.tower_rows + registers, shape.tower_dim
    matrices = 2 + (shape.tower == "qwen2_5_vl")  # of the MLP
    layers = shape.vision_layers_run * 2 * positions * (4 * width**2 + matrices * width * shape.vision_intermediate)
    whole = shape.whole_blocks if shape.window else shape.vision_layers_run
    pairs = whole * positions**2 + (shape.vision_layers_run - whole) * _within_windows(shape)
    embedded = 2 * patches * 3 * shape.together * shape.patch**2 * width
    return float(frames * (embedded + layers + 4 * pairs * width))


def _within_windows(shape: ModelShape) -> int:
    """Pairs of patches of a frame that share a window; the last window of a side may be smaller."""
    if not shape.window:
        return 0
    count, rest = divmod(shape.height * shape.merge, shape.window)
    return int((count * shape.window**2 + rest**2) ** 2)


def projector_flops(shape: ModelShape, tokens: int) -> float:
    """Floating-point operations of the projector's one or two layers: on T * H * W tokens, or on pooled ones.

    Those of DeepStack's levels, each with a projector of its own, included.
    """
    return float((1 + shape.levels) * 2 * tokens * _projector_weights(shape))


def _projector_weights(shape: ModelShape) -> int:
    between = shape.projector_width or shape.dim
    return shape.vision_dim * between + between * shape.dim * (shape.projector_layers - 1)


def parameter_count(shape: ModelShape) -> int:
    """Number of weights of the whole model, unused layers of towers included, tied matrices once."""
    projector = _projector_weights(shape) + 2 * shape.vision_dim * shape.projector_norm
    between = (shape.projector_width or shape.dim) * (shape.projector_layers - 1)
    projector += (between + shape.dim) * shape.projector_bias
    newline = shape.dim * shape.newline
    return shape.towers * _tower_parameters(shape) + projector + newline + _llm_parameters(shape)


def _tower_parameters(shape: ModelShape) -> int:
    width, inner = shape.tower_dim, shape.vision_intermediate
    attention = 4 * (width**2 + width)
    mlp = 2 * width * inner + inner + width
    norm = 2 * width
    embeddings = 3 * shape.patch**2 * width + shape.tower_rows * width
    if shape.tower == "qwen2_5_vl":  # three matrices and norms without bias; the projector's norm is of single patches
        layer = attention + 3 * width * inner + 2 * inner + width + 2 * width
        return 3 * shape.together * shape.patch**2 * width + shape.vision_layers * layer + width
    if shape.tower == "qwen3_vl":  # positions of its own number; DeepStack's projectors, each with a norm
        embedding = (3 * shape.together * shape.patch**2 + 1) * width + (shape.tower_positions or 0) * width
        level = _projector_weights(shape) + (shape.projector_width or shape.dim) + shape.dim + 2 * shape.vision_dim
        return embedding + shape.vision_layers * (attention + mlp + 2 * norm) + norm + shape.levels * level
    if shape.tower == "internvl":  # a CLS token, a bias of the patch embedding, two scales per layer, no last norm
        return embeddings + 2 * width + shape.vision_layers * (attention + mlp + 2 * norm + 2 * width)
    # CLIP: a CLS token and a norm before the layers. SigLIP: a bias of the patch embedding. DINOv2: a CLS token, a bias
    # and a mask token; two scales in each layer. All: a last norm.
    embeddings += width + norm if shape.cls else width
    layer = attention + mlp + 2 * norm + 2 * width * shape.layer_scale
    # SigLIP's head: a probe that attends to the patches, a norm and an MLP.
    head = width + attention + norm + mlp if shape.pooling_head else 0
    return embeddings + shape.vision_layers * layer + norm + head


def _llm_parameters(shape: ModelShape) -> int:
    layer = _layer_weights(shape) + 2 * shape.dim
    if shape.qkv_bias:
        layer += (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        # Llama's attention_bias includes the output projection.
        layer += 0 if shape.text in ("qwen2", "qwen2_5_vl_text") else shape.dim
    layer += 2 * shape.head_dim if shape.text in ("qwen3", "qwen3_vl_text") else 0  # norms of queries and keys
    embeddings = shape.vocabulary * shape.dim * (1 if shape.tied else 2)
    return shape.layers * layer + embeddings + shape.dim


def weight_bytes(shape: ModelShape, bytes_per_value: int) -> int:
    """Bytes of all weights, except biases of llama's MLP, which no model of the families has."""
    return parameter_count(shape) * bytes_per_value


def kv_cache_bytes(shape: ModelShape, tokens: int, bytes_per_value: int) -> int:
    """Bytes of the language model's KV cache."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * tokens * bytes_per_value


def question_bytes(shape: ModelShape, positions: int, bytes_per_value: int) -> int:
    """Bytes that a question of so many positions takes, its answer included: KV cache, activations, logits."""
    activations = positions * _position_values(shape) * bytes_per_value
    return kv_cache_bytes(shape, positions, bytes_per_value) + activations + shape.vocabulary * FLOAT32


def _position_values(shape: ModelShape) -> int:
    """Values per position of a language model's layer: four hidden states, rotary tables, three of the MLP's width."""
    return 4 * shape.dim + 2 * shape.head_dim + 3 * shape.intermediate


def feature_bytes(shape: ModelShape, bytes_per_value: int) -> int:
    """Bytes of one frame's features before the projector, CLS and DeepStack's levels included: an entry of a store."""
    return shape.tower_rows * shape.tower_dim * (shape.feature_layers + shape.levels) * bytes_per_value


def peak_bytes(
    shape: ModelShape,
    frames: int,
    tokens: int,
    bytes_per_value: int,
    clips: int = 1,
    questions: int = 1,
    text_tokens: int = 0,
    answer_tokens: int = 0,
    attention: str = "sdpa",
    frames_at_once: int = VISION_CHUNK,
    registers: int = 0,
) -> int:
    """Peak memory of a forward pass over a batch of clips: an estimate.

    Frames, visual tokens (separators included) and questions read at once are numbers per clip; text and answer tokens
    are per question. It is weights + the largest of
    - tower: features of a clip's frames + for the frames at once the pixels, the hidden states asked for,
      three more, and three activations of the MLP's width (QuickGELU makes three, GELU two);
    - projector: features of all clips + two activations of its width, and the output of each of DeepStack's levels;
    - prefill, over all visual tokens: KV cache + four hidden states, DeepStack's levels, rotary tables and three
      activations of the MLP's width. Attention that stores its scores ("eager") adds two squares per head, one of them
      in float32 (and a third, in float32, where the model's dtype is another), and one for the mask;
    - questions, over their text: KV cache of prefixes, text and answers + the same activations + a mask + one row of
      float32 logits per question. "eager" adds two scores per head.

    Activations came out 0 to 30 % above traced forward passes of small float32 models. A GPU adds about 1 GB for its
    context and libraries' workspaces, and fragmentation; fused kernels stay below the estimate. Not counted: what a
    training step keeps.
    """
    chunk = min(clips * frames, frames_at_once)
    positions = shape.tower_rows + registers
    layer = (3 + shape.feature_layers + shape.levels) * shape.tower_dim + 3 * shape.vision_intermediate
    tower = chunk * (feature_bytes(shape, 1) + 3 * shape.image_size**2 + positions * layer)
    cell = (1 + shape.levels) * shape.vision_dim + (2 + shape.levels) * shape.dim
    projector = clips * frames * shape.height * shape.width * cell
    values = _position_values(shape)
    prefill = kv_cache_bytes(shape, clips * tokens, 1) + clips * tokens * (values + shape.levels * shape.dim)
    text = questions * text_tokens
    scores = clips * text * (tokens + text)
    read = tokens + text + questions * answer_tokens
    reading = kv_cache_bytes(shape, clips * read, 1) + clips * text * values + scores
    wide_prefill, wide_reading = 0, clips * questions * shape.vocabulary * FLOAT32 + scores
    if attention == "eager":
        square = clips * tokens**2
        prefill += (shape.heads + 1) * square
        wide = FLOAT32 if bytes_per_value == FLOAT32 else 2 * FLOAT32
        wide_prefill += shape.heads * square * wide
        reading += shape.heads * scores
        wide_reading += shape.heads * scores * wide
    return weight_bytes(shape, bytes_per_value) + max(
        tower * bytes_per_value,
        projector * bytes_per_value,
        prefill * bytes_per_value + wide_prefill,
        reading * bytes_per_value + wide_reading,
    )
