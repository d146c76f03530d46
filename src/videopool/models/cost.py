"""What reading visual tokens costs, from a model's sizes alone."""

from videopool.models.backbone import ModelShape


def prefill_flops(shape: ModelShape, tokens: int) -> float:
    """Floating-point operations of the language model's forward pass over a clip's visual tokens.

    Two per multiply-add. For L tokens and each layer: 2 * L * (weights of the query, key, value and
    output projections and of the three matrices of the gated MLP) + 4 * L^2 * heads * head_dim for
    scores and their weighted sum, counted over the full L x L square as attention kernels' counters do
    (a causal kernel may skip up to half of it). Norms, rotary embeddings and the vocabulary are left out.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = shape.dim * (2 * queries + 2 * keys) + 3 * shape.dim * shape.intermediate
    return float(shape.layers * (2 * tokens * weights + 4 * tokens**2 * queries))
