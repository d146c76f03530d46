"""Passes through a tower or a language model that keep the states of some layers and run no layer beyond them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from videopool.models.errors import ModelError
from videopool.models.tower_outputs import LayerStates, Pass, TowerOutput, blocks_of, projection_of

Clock = Callable[[], AbstractContextManager[None]]  # of a kind of work


def device_of(module: nn.Module) -> torch.device:
    """The device that a module computes on: its weights', or the one to which accelerate brings offloaded ones."""
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", [hook]):
            if getattr(one, "execution_device", None) is not None:
                return torch.device(one.execution_device)
        for weight in part.parameters(recurse=False):
            return weight.device
    raise ModelError(f"{type(module).__name__} has no weights")


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

    with suppress(_Enough), ExitStack() as hooks:
        for layer in set(layers) - {0}:
            hook = blocks[layer - 1].register_forward_hook(lambda _, __, output, layer=layer: keep(layer, output))
            hooks.enter_context(hook)
        if 0 in layers:
            hooks.enter_context(blocks[0].register_forward_pre_hook(lambda _, inputs: keep(0, inputs)))
        run()
    return states


def tower_pass(tower: Any, pixels: Tensor, outputs: Sequence[TowerOutput], clock: Clock = nullcontext) -> list[Tensor]:
    """Outputs [T, rows, width] of one pass of a tower over pixels [T, 3, S, S].

    No states are kept that no output needs: for the last layer but one of CLIP-L, 1/25 of the memory of all. The clock
    runs while outputs are computed from what the layers left.
    """
    blocks, dtype = blocks_of(tower), next(tower.parameters()).dtype
    layers = {layer for one in outputs for layer in one.layers}
    states, projections = dict[int, Tensor](), dict[tuple[int, str], Tensor]()
    with ExitStack() as hooks:
        for place in {(one.block, name) for one in outputs if one.block for name in one.caught}:
            projection = projection_of(blocks[place[0] - 1], place[1])
            keep = partial(projections.__setitem__, place)
            hooks.enter_context(projection.register_forward_hook(lambda _, __, out, keep=keep: keep(out)))
        if layers:
            states = layer_states(blocks, lambda: tower(pixels.to(dtype)), [*layers])
    if registers := getattr(tower, "registers", 0):  # they serve the tower alone
        states = {layer: own[:, :-registers] for layer, own in states.items()}
    seen = Pass(tower, pixels, states, projections)
    found = []
    for one in outputs:
        with clock() if one.layers and not isinstance(one, LayerStates) else nullcontext():
            found.append(one.of(seen)[:, : one.size[0]])
    return found
