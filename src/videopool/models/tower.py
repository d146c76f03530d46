"""Hidden states between a model's layers, without running or keeping more of it than is asked for."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


class _Enough(Exception):
    """Leaves the model once the last layer that is wanted has run."""


def layer_states(blocks: Any, run: Callable[[], object], layers: Sequence[int]) -> dict[int, Tensor]:
    """What enters the first of a model's blocks (0) or leaves the i-th (i), by i, while `run` runs the model.

    Blocks behind the last wanted one do not run.
    """
    found: dict[int, Tensor] = {}
    wanted = set(layers)

    def keep(number: int, states: Tensor) -> None:
        found[number] = states
        if number == max(wanted):
            raise _Enough

    handles = []
    for number in sorted(wanted):
        if number == 0:
            handles.append(blocks[0].register_forward_pre_hook(lambda _, args: keep(0, args[0])))
        else:
            handles.append(
                blocks[number - 1].register_forward_hook(
                    lambda _, __, out, number=number: keep(number, out[0] if isinstance(out, tuple) else out)
                )
            )
    try:
        run()
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found


def hidden_states(tower: nn.Module, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """Hidden states [T, C + H*W, D] of some layers for pixels [T, 3, S, S].

    Layers count as in transformers: 0 is what enters the first layer, i what leaves the i-th, negative ones
    count from the end. No other states are kept: CLIP-L's last but one of 24 needs a twenty-fifth of the memory
    of all.
    """
    blocks: Any = tower.encoder.layers  # type: ignore[union-attr]
    wanted = [layer if layer >= 0 else len(blocks) + 1 + layer for layer in layers]
    found = layer_states(blocks, lambda: tower(pixels), wanted)
    return [found[number] for number in wanted]
