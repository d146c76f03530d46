"""What reading clips costs, from a model's sizes alone.

Operations are floating-point ones, two per multiply-add; they count matrix products, and leave out norms,
activations, softmax and rotary embeddings. Bytes are exact where a docstring does not say "estimate".
T frames make H x W patches each; L is a number of positions that the language model reads, the family's
separators behind the visual tokens included.
"""

from videopool.models.backbone import VISION_CHUNK
from videopool.models.sizes import ModelShape

FLOAT32 = 4  # bytes


def prefill_flops(shape: ModelShape, tokens: int) -> float:
    """Floating-point operations of the language model's forward pass over L = tokens positions.

    For each layer: 2 * L * (weights of the query, key, value and output projections and of the three
    matrices of the gated MLP) + 4 * L^2 * heads * head_dim for scores and their weighted sum, counted over
    the full L x L square as attention kernels' counters do (a causal kernel may skip up to half of it).
    Grouped heads have narrower keys and values, but as many scores. The vocabulary is left out.
    """
    return _linear_flops(shape, tokens) + _attention_flops(shape, tokens)


def _linear_flops(shape: ModelShape, tokens: int) -> float:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = shape.dim * (2 * queries + 2 * keys) + 3 * shape.dim * shape.intermediate
    return float(shape.layers * 2 * tokens * weights)


def _attention_flops(shape: ModelShape, tokens: int) -> float:
    return float(shape.layers * 4 * tokens**2 * shape.heads * shape.head_dim)


def training_flops(shape: ModelShape, tokens: int, projected: int, again: bool = False) -> float:
    """Floating-point operations of learning from one conversation over L = tokens positions, text included.

    Going backward, the frozen language model takes gradients of what entered its matrices, and none of the matrices:
    as many operations as going forward, and twice as many for attention, of whose two products both sides have
    gradients. The projector takes both. The tower's features are there; LoRA's own matrices and the vocabulary are
    left out.

    Args:
        projected: tokens that the projector reads.
        again: each layer is run forward a second time, up to its last matrix, as gradient checkpointing does.
    """
    llm = (2 + again) * _linear_flops(shape, tokens) + (3 + again) * _attention_flops(shape, tokens)
    last = 2 * shape.layers * tokens * shape.intermediate * shape.dim
    return llm - again * last + 3 * projector_flops(shape, projected)


def tower_flops(shape: ModelShape, frames: int) -> float:
    """Floating-point operations of the vision tower on T = frames frames, up to the feature layer.

    With P = H * W positions (one more with CLS) of width D and an MLP of width I, a frame takes
    2 * H * W * 3 * patch^2 * D for the patches, and in each layer 2 * P * (4 * D^2 + 2 * D * I) + 4 * P^2 * D.
    """
    patches, width = shape.height * shape.width, shape.tower_dim
    positions = patches + shape.cls
    layer = 2 * positions * (4 * width**2 + 2 * width * shape.vision_intermediate) + 4 * positions**2 * width
    return float(frames * (2 * patches * 3 * shape.patch**2 * width + shape.vision_layers_run * layer))


def projector_flops(shape: ModelShape, tokens: int) -> float:
    """Floating-point operations of the two-layer projector on so many tokens.

    They are T * H * W where pooling acts behind the projector, and the pooled ones where it acts before.
    """
    return float(2 * tokens * (shape.vision_dim * shape.dim + shape.dim**2))


def parameter_count(shape: ModelShape) -> int:
    """Number of weights of the whole model, unused layers of towers included, tied matrices once."""
    newline = shape.dim if shape.newline else 0
    return shape.towers * _tower_parameters(shape) + _projector_parameters(shape) + newline + _llm_parameters(shape)


def _tower_parameters(shape: ModelShape) -> int:
    width, inner = shape.tower_dim, shape.vision_intermediate
    patches = shape.height * shape.width
    attention = 4 * (width**2 + width)
    mlp = 2 * width * inner + inner + width
    norm = 2 * width
    embeddings = 3 * shape.patch**2 * width + (patches + shape.cls) * width
    # CLIP: a CLS token and a norm before the layers. SigLIP: a bias of the patch embedding. Both: a last norm.
    embeddings += width + norm if shape.cls else width
    # Of SigLIP: a probe that attends to the patches, a norm and an MLP.
    head = width + attention + norm + mlp if shape.pooling_head else 0
    return embeddings + shape.vision_layers * (attention + mlp + 2 * norm) + norm + head


def _projector_parameters(shape: ModelShape) -> int:
    biases = 2 * shape.dim if shape.projector_bias else 0
    return shape.vision_dim * shape.dim + shape.dim**2 + biases


def _llm_parameters(shape: ModelShape) -> int:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.dim * (2 * queries + 2 * keys) + 3 * shape.dim * shape.intermediate + 2 * shape.dim
    if shape.qkv_bias:
        layer += queries + 2 * keys
        layer += 0 if shape.text == "qwen2" else shape.dim  # llama's attention_bias is of the output too
    embeddings = shape.vocabulary * shape.dim * (1 if shape.tied else 2)
    return shape.layers * layer + embeddings + shape.dim


def weight_bytes(shape: ModelShape, bytes_per_value: int) -> int:
    """Bytes of all weights. (Biases of llama's MLP, which no model of the families has, are not counted.)"""
    return parameter_count(shape) * bytes_per_value


def kv_cache_bytes(shape: ModelShape, tokens: int, bytes_per_value: int) -> int:
    """Bytes of the keys and values that the language model keeps for so many positions."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * tokens * bytes_per_value


def feature_bytes(shape: ModelShape, bytes_per_value: int) -> int:
    """Bytes of one frame's features before the projector, CLS included: an entry of the feature store."""
    return (shape.height * shape.width + shape.cls) * shape.vision_dim * bytes_per_value


def peak_bytes(
    shape: ModelShape,
    frames: int,
    tokens: int,
    bytes_per_value: int,
    text_tokens: int = 0,
    clips: int = 1,
    attention: str = "sdpa",
) -> int:
    """Largest memory of a forward pass over clips of so many frames: an estimate.

    weights + the largest of
    - tower: features of a clip's frames + for VISION_CHUNK frames the pixels, the hidden states asked for,
      three more, and three activations of the MLP's width (QuickGELU makes three, GELU two);
    - projector: features of all clips + two activations of its width;
    - language model, over L = tokens + text_tokens positions a clip: key-value cache + four
      hidden states, rotary tables and three activations of the MLP's width + one row of logits a clip in
      float32. Attention that writes its scores down ("eager") adds two squares of L x L a head, one of them
      in float32, and one for the mask.

    Slack: activations came out 0 to 30 % above traced forward passes of small float32 models.
    On a GPU about 1 GB for its context and libraries' workspaces comes on top, and fragmentation; fused
    kernels stay below. Answers' own tokens and what a training step keeps are not counted.

    Args:
        frames: of a clip.
        tokens: visual tokens of a clip, separators included.
        text_tokens: of prompt and questions.
        clips: read at once.
        attention: "sdpa" or "eager".
    """
    chunk = min(frames, VISION_CHUNK)
    positions = shape.height * shape.width + shape.cls
    features = frames * feature_bytes(shape, 1)
    layer = (3 + shape.feature_layers) * shape.tower_dim + 3 * shape.vision_intermediate
    tower = features + chunk * (3 * shape.image_size**2 + positions * layer)
    projector = clips * frames * shape.height * shape.width * (shape.vision_dim + 2 * shape.dim)
    length = tokens + text_tokens
    read = clips * length
    llm = kv_cache_bytes(shape, read, 1) + read * (4 * shape.dim + 2 * shape.head_dim + 3 * shape.intermediate)
    extra = clips * shape.vocabulary * FLOAT32
    if attention == "eager":
        square = clips * length**2
        llm += (shape.heads + 1) * square
        extra += shape.heads * square * FLOAT32
    largest = max(tower * bytes_per_value, projector * bytes_per_value, llm * bytes_per_value + extra)
    return weight_bytes(shape, bytes_per_value) + largest
