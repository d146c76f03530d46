"""Changes of the vision tower that remove its outliers: registers, and tokens of high norm replaced after a layer.

A register is a token of zeros that enters the first block behind the patches; nothing after the tower sees it. At test
time, without training, neurons of the blocks' MLPs that make outliers can be moved to it (arXiv 2506.08010): after the
activation function, the register takes the largest activation of all other tokens, and theirs become 0.

Shapes: states [T, C + H*W + N, D] with C tokens (CLS) before the patches and N registers behind them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from videopool.models.errors import ModelError, is_number
from videopool.models.sizes import ModelShape
from videopool.models.tower_outputs import blocks_of
from videopool.pooling.base import precise

ZEROS, TEST_TIME = "zeros", "test_time"
MEAN, NORM = "mean", "norm"


@dataclass(frozen=True)
class TowerChanges:
    """What is changed in a tower.

    Args:
        register: "zeros": one register; a number: so many; "test_time": one, with the activations of `neurons`.
        neurons: pairs of a block, counted from 1, and a neuron of its MLP, counted from 0.
        replace: what takes the place of a frame's patches of high norm after `layer`: "mean", the mean of its other
            patches; "norm", the same patch with the median norm.
        layer: 1 for the first, -1 for the last.
        times_median: of a high norm, in medians of the frame's patches.

    Raises ModelError for a value out of range, or one that would have no effect.
    """

    register: str | int | None = None
    neurons: Sequence[Sequence[int]] = ()
    replace: str | None = None
    layer: int | None = None
    times_median: float = 3.0

    def __post_init__(self) -> None:
        key, register = "model.tower", self.register
        if register not in (None, ZEROS, TEST_TIME) and not _whole(register, 1):
            raise ModelError(f"{key}.register={register!r}: say {ZEROS}, {TEST_TIME}, a number above 0, or null")
        pairs = isinstance(self.neurons, Sequence) and not isinstance(self.neurons, str)
        if not pairs or not all(
            isinstance(pair, Sequence) and len(pair) == 2 and _whole(pair[0], 1) and _whole(pair[1], 0)
            for pair in self.neurons
        ):
            raise ModelError(f"{key}.neurons={self.neurons!r}: give pairs of a block and a neuron, as in [[6, 408]]")
        if bool(self.neurons) != (register == TEST_TIME):
            said = "needs model.tower.neurons" if register == TEST_TIME else f"is for {key}.register={TEST_TIME}"
            where = f"{key}.register={TEST_TIME}" if register == TEST_TIME else f"{key}.neurons"
            raise ModelError(f"{where} {said}; job=norms job.register_neurons=10 finds them")
        if self.replace not in (None, MEAN, NORM):
            raise ModelError(f"{key}.replace={self.replace!r}: say {MEAN}, {NORM} or null")
        if (self.replace is None) != (self.layer is None):
            raise ModelError(f"{key}.replace and {key}.layer go together: say both or none")
        if self.layer is not None and (not isinstance(self.layer, int) or isinstance(self.layer, bool)):
            raise ModelError(f"{key}.layer={self.layer!r}: give a whole number")
        if not is_number(self.times_median) or not 1 < self.times_median < float("inf"):
            raise ModelError(f"{key}.times_median={self.times_median!r}: give a number above 1")

    @property
    def registers(self) -> int:
        """How many tokens are added."""
        return self.register if isinstance(self.register, int) else int(self.register is not None)

    @property
    def identity(self) -> dict[str, Any] | None:
        """All that determines what the tower computes; None if nothing is changed."""
        if not self.registers and self.replace is None:
            return None
        register = 1 if self.register == ZEROS else self.register
        pairs = sorted({(int(block), int(neuron)) for block, neuron in self.neurons})
        replaced = {"replace": self.replace, "layer": self.layer, "times_median": float(self.times_median)}
        added = {"register": register, "neurons": [list(pair) for pair in pairs]}
        return (added if self.registers else {}) | (replaced if self.replace else {})

    @property
    def label(self) -> str:
        """For tables; "" if nothing is changed."""
        words = []
        if self.registers:
            kind = f"{len(self.neurons)} neurons" if self.register == TEST_TIME else f"{self.registers}"
            words.append(f"register {kind}")
        if self.replace:
            words.append(f"outliers {self.replace} {self.layer} {self.times_median:g}")
        return " ".join(words)

    def check(self, shape: ModelShape, model: str) -> None:
        """Raises ModelError for a block, layer or neuron that the tower of a model lacks."""
        if self.registers and shape.together > 1:
            raise ModelError(f"model.tower.register: the tower of {model} has no place for registers; leave it out")
        if self.replace and shape.by_clip:
            line = f"patches of views of one size are replaced; {model} takes each clip's: give a number of pixels"
            raise ModelError(f"model.frame_size: {line}")
        depth, width = shape.vision_layers, shape.vision_intermediate
        for block, neuron in self.neurons:
            if block > depth or neuron >= width:
                there = f"blocks 1..{depth} with neurons 0..{width - 1}"
                raise ModelError(f"model.tower.neurons: [{block}, {neuron}]: {model} has {there}")
        if self.layer is not None and not 1 <= self.layer + (depth + 1) * (self.layer < 0) <= depth:
            raise ModelError(f"model.tower.layer={self.layer}: {model} has layers 1..{depth} there, or -1 for the last")

    def apply(self, tower: Any, shape: ModelShape) -> None:
        """Change a tower from now on."""
        blocks, count = blocks_of(tower), self.registers
        if count:
            tower.registers = count
            blocks[0].register_forward_pre_hook(partial(_add, count=count))
        by_block: dict[int, list[int]] = {}
        for block, neuron in self.neurons:
            by_block.setdefault(block, []).append(neuron)
        for block, neurons in by_block.items():
            blocks[block - 1].mlp.fc2.register_forward_pre_hook(partial(_move, neurons=sorted(set(neurons))))
        if self.replace is not None and self.layer is not None:
            layer = self.layer + (shape.vision_layers + 1) * (self.layer < 0)
            patches = slice(int(shape.cls), shape.tower_rows)
            blocks[layer - 1].register_forward_hook(
                partial(_replaced, patches=patches, times=float(self.times_median), by=self.replace)
            )


def tower_changes(model: Mapping[str, Any]) -> TowerChanges:
    """The node `tower` of the group `model`. Raises ModelError for an unknown key, and as TowerChanges."""
    settings = model.get("tower") or {}
    known = TowerChanges.__dataclass_fields__
    if not isinstance(settings, Mapping) or set(settings) - set(known):
        raise ModelError(f"model.tower={settings!r}: there are {', '.join(known)}")
    return TowerChanges(**settings)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _add(_: Any, inputs: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The states that enter the first block, with registers behind them."""
    states, *others = inputs
    return torch.cat([states, states.new_zeros(len(states), count, states.shape[-1])], dim=1), *others


def _move(_: Any, inputs: tuple[Any, ...], neurons: list[int]) -> tuple[Any, ...]:
    """Activations [T, L, I], of which those of some neurons are moved to the last token."""
    activations = inputs[0].clone()
    largest = activations[:, :-1, neurons].amax(dim=1)
    activations[:, :, neurons] = 0
    activations[:, -1, neurons] = largest
    return activations, *inputs[1:]


def high(patches: Tensor, times: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which patches [T, P, D] exceed so many medians of their frame's norms; the norms [T, P], the medians [T, 1]."""
    norms = torch.linalg.vector_norm(precise(patches), dim=-1)
    medians = norms.quantile(0.5, dim=1, keepdim=True)
    return norms > times * medians, norms, medians


def _replaced(_: Any, __: Any, output: Any, patches: slice, times: float, by: str) -> Any:
    """A block's output with other values for patches of high norm."""
    states = output[0] if isinstance(output, tuple) else output
    if states.dim() == 2:  # Qwen's, frame after frame
        frames = states.unflatten(0, (-1, patches.stop))
        replaced: Tensor = _replaced(_, __, frames, patches, times, by)
        return replaced.flatten(0, 1)
    own = states[:, patches]
    chosen, norms, medians = high(own, times)
    if by == MEAN:
        ordinary = ~chosen[..., None]
        new = (precise(own) * ordinary).sum(1, keepdim=True) / ordinary.sum(1, keepdim=True)
    else:
        new = precise(own) * (medians / norms.where(norms > 0, torch.ones_like(norms)))[..., None]
    changed = states.clone()
    changed[:, patches] = torch.where(chosen[..., None], new.to(own.dtype), own)
    return (changed, *output[1:]) if isinstance(output, tuple) else changed
