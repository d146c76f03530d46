"""A few numbers by which a base model is known, however it is stored."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from videopool.models.backbone import Backbone

NUMBERS = 64
TOLERANCE = 0.02  # relative: bfloat16 keeps 2 to 3 digits


def probe(backbone: "Backbone") -> list[float]:
    """One number of each of up to 64 matrices of the language model; empty where weights are not in memory.

    Equal for a folder, the hub and other dtypes of one model, up to rounding; other weights differ. Without effect on
    what LoRA adds.
    """
    layers: Any = backbone.language_model.layers
    matrices = []
    for layer in layers:
        for name, weight in layer.named_parameters():
            if weight.dim() == 2 and "lora_" not in name:
                matrices.append(weight)
    if any(weight.is_meta for weight in matrices):
        return []
    chosen = [matrices[i * len(matrices) // NUMBERS] for i in range(NUMBERS)] if len(matrices) > NUMBERS else matrices
    return [float(f"{float(weight.detach().flatten()[weight.numel() // 3]):.5g}") for weight in chosen]


def same_base(told: Sequence[float], found: Sequence[float]) -> bool:
    """Whether two probes are of one model; true where one of them is empty."""
    if not told or not found:
        return True
    if len(told) != len(found):
        return False
    one, other = torch.tensor(told), torch.tensor(found)
    return bool(torch.allclose(one, other, rtol=TOLERANCE, atol=1e-3 * float(one.abs().mean())))
