"""Hidden states and attention inside the language model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError
from videopool.models.stages import check_context
from videopool.models.tower import layer_states


@torch.inference_mode()
def llm_states(
    backbone: Backbone, embeddings: Tensor, layers: Sequence[int], attention_layers: Sequence[int] = ()
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """What leaves some layers, and where the last position looks in some layers.

    Args:
        embeddings: [B, L, D] of whole sequences, without padding.
        layers: 0 is what enters the first layer, i what leaves the i-th, before the final norm.
        attention_layers: 1 is the first layer.

    Returns:
        Hidden states [B, L, D] by layer, and attention [B, L] by layer: from the last position, mean over heads,
        float32, summing to 1. Layers behind the last wanted one do not run.

    Raises:
        ModelError: the sequence is longer than the context, or attention cannot be had.
    """
    check_context(backbone.name, backbone.shape.context, embeddings.shape[1])
    blocks: Any = backbone.language_model.layers
    looks: dict[int, Tensor] = {}

    def look(number: int, weights: Tensor | None) -> None:  # [B, heads, L, L]
        if weights is None:
            raise ModelError("attention weights are kept by model.attention=eager only")
        looks[number] = weights[:, :, -1].float().mean(1)

    handles = [
        blocks[number - 1].self_attn.register_forward_hook(lambda _, __, out, number=number: look(number, out[1]))
        for number in attention_layers
    ]
    try:
        found = layer_states(
            blocks, lambda: backbone.llm(embeddings, use_cache=False), [*layers, *attention_layers] or [0]
        )
    finally:
        for handle in handles:
            handle.remove()
    return {layer: found[layer] for layer in layers}, looks
