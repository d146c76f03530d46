"""Hidden states between a model's layers; nothing else runs or is kept."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


class _Enough(Exception):
    """Leaves the model once the last wanted layer has run."""


def layer_states(blocks: Any, run: Callable[[], object], layers: Sequence[int]) -> dict[int, Tensor]:
    """Hidden states by layer while `run` runs the model: 0 is the input of the first block, i the output of the i-th.

    Blocks after the last wanted one do not run.
    """
    states: dict[int, Tensor] = {}
    last = max(layers)

    def keep(layer: int, output: Any) -> None:
        states[layer] = output[0] if isinstance(output, tuple) else output
        if layer == last:
            raise _Enough

    handles = [
        blocks[layer - 1].register_forward_hook(lambda _, __, output, layer=layer: keep(layer, output))
        if layer
        else blocks[0].register_forward_pre_hook(lambda _, inputs: keep(0, inputs))
        for layer in set(layers)
    ]
    try:
        run()
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return states


def hidden_states(tower: nn.Module, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """Hidden states [T, C + H*W, D] of some layers for pixels [T, 3, S, S].

    Layers count as in transformers: 0 is the input of the first layer, i the output of the i-th, and negative numbers
    count from the end. No other states are kept: for the last layer but one of CLIP-L, 1/25 of the memory of all.
    """
    blocks: Any = tower.encoder.layers  # type: ignore[union-attr]
    wanted = [layer if layer >= 0 else len(blocks) + 1 + layer for layer in layers]
    states = layer_states(blocks, lambda: tower(pixels), wanted)
    return [states[layer] for layer in wanted]
