"""Neurons of the tower that outliers activate: what a register at test time takes from them."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from videopool.models import ModelShape
from videopool.models.tower_changes import high
from videopool.models.tower_outputs import Pass, TowerOutput, blocks_of
from videopool.pooling.base import precise


@dataclass(frozen=True)
class OutlierNeurons(TowerOutput):
    """Activations of MLP neurons at a frame's outliers after a layer: [T, blocks, I + 1], summed over the outliers.

    Of the blocks up to that layer, after the activation function; the last column is the number of outliers. The tower
    runs once more, so that no activations of whole frames are held.
    """

    exact = True
    times_median: float = 3.0
    extra: int = 0  # positions before the patches

    def of(self, seen: Pass) -> Tensor:
        rows, width = self.size
        patches = seen.states[self.layers[0]][:, self.extra :]
        chosen = high(patches, self.times_median)[0].float()  # [T, P]
        sums = patches.new_zeros(len(patches), rows, width, dtype=torch.float32)
        sums[..., -1] = chosen.sum(1, keepdim=True)

        def gather(_: Any, inputs: tuple[Any, ...], row: int) -> None:
            own = inputs[0][:, self.extra : self.extra + chosen.shape[1]]
            sums[:, row, :-1] = (chosen[:, None] @ precise(own))[:, 0]

        with ExitStack() as hooks:
            for row, block in enumerate(blocks_of(seen.tower)[:rows]):
                hooks.enter_context(block.mlp.fc2.register_forward_pre_hook(partial(gather, row=row)))
            seen.tower(seen.pixels.to(patches.dtype))
        return sums


def outlier_neurons(shape: ModelShape, times_median: float) -> OutlierNeurons:
    """Those of outliers after the last layer that the features need."""
    layer = shape.vision_layers_run
    return OutlierNeurons(
        f"neurons of outliers above {times_median:g} medians after layer {layer}",
        (layer, shape.vision_intermediate + 1),
        (layer,),
        times_median=times_median,
        extra=int(shape.cls),
    )
