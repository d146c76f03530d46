"""All that a point measures, as one thing that can be saved and gone on with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from videopool.norms.attention import AttentionNorms
from videopool.norms.outliers import OutlierRules
from videopool.norms.stage import StageNorms


class Measurement:
    """Norms at some stages, and attention in some layers.

    Args:
        stages: names.
        layers: of the language model, whose attention is measured.
        p: of the norm.
        rules: for outliers.
    """

    def __init__(self, stages: Sequence[str], layers: Sequence[int], p: float, rules: OutlierRules) -> None:
        self.stages = {name: StageNorms(p, rules) for name in stages}
        self.attention = {layer: AttentionNorms() for layer in layers}

    def _parts(self) -> dict[str, StageNorms | AttentionNorms]:
        return {**self.stages, **{f"attention.{layer}": part for layer, part in self.attention.items()}}

    def numbers(self) -> dict[str, Any]:
        """What norms.json holds of it."""
        return {
            "stages": {name: stage.numbers() for name, stage in self.stages.items()},
            "attention": {str(layer): part.numbers() for layer, part in self.attention.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What norms.safetensors holds of it: "<stage>/<array>" and "attention.<layer>/<array>"."""
        return _joined({name: part.arrays() for name, part in self._parts().items()})

    def state(self) -> dict[str, np.ndarray]:
        """All that was gathered so far."""
        return _joined({name: part.state() for name, part in self._parts().items()})

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state. Raises KeyError if it is that of another measurement."""
        for name, part in self._parts().items():
            head = f"{name}/"
            part.load({k.removeprefix(head): v for k, v in state.items() if k.startswith(head)})


def _joined(parts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{name}/{key}": values for name, arrays in parts.items() for key, values in arrays.items()}
