"""Where outliers come from: the layer of their birth, the tower's neurons that they activate, and whether tower and
language model mark the same tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from videopool.norms.stage import ClipNorms
from videopool.norms.statistics import Sums


class Births(Sums):
    """Layers of birth of the outliers of the last of some layers, summed over clips.

    An outlier is born in the first layer from which on it is an outlier in every layer.
    """

    def __init__(self, stages: Sequence[str], rules: Sequence[str]) -> None:
        super().__init__()
        self.stages, self.rules = stages, rules

    def add(self, layers: Sequence[ClipNorms]) -> None:
        """Add a clip by its norms after each layer; the tokens are the same in all."""
        for rule in self.rules:
            marked = np.stack([layer.outliers[rule].reshape(-1) for layer in layers])
            since = np.logical_and.accumulate(marked[::-1])[::-1]  # in this layer and all later ones
            born = since & ~np.vstack([np.zeros_like(since[:1]), since[:-1]])
            self.accumulate({f"{rule}.born": born.sum(1)})

    def numbers(self) -> dict[str, dict[str, float | None]]:
        """By stage and rule, the share of the last layer's outliers that are born there; None without any."""
        shares = {}
        for rule in self.rules:
            born = np.broadcast_to(self[f"{rule}.born"], (len(self.stages),))
            shares[rule] = (born / born.sum()).tolist() if born.sum() else [None] * len(born)
        return {stage: {rule: own[place] for rule, own in shares.items()} for place, stage in enumerate(self.stages)}


class Crossed(Sums):
    """Outliers of the tower against those of the language model, token by token, summed over clips."""

    def __init__(self, rules: Sequence[str]) -> None:
        super().__init__()
        self.rules = rules

    def add(self, tower: ClipNorms, llm: ClipNorms, places: np.ndarray) -> None:
        """Add a clip: for each token of the language model its place [N] among the tower's; -1: it has none."""
        there = places >= 0
        self.accumulate({"tokens": there.sum()})
        for rule in self.rules:
            first = tower.outliers[rule].reshape(-1)[places[there]]
            second = llm.outliers[rule].reshape(-1)[there]
            chance = first.sum() * second.sum() / max(1, there.sum())
            cells = {"both": first & second, "tower": first & ~second, "llm": second & ~first}
            self.accumulate({f"{rule}.{name}": cell.sum() for name, cell in cells.items()})
            self.accumulate({f"{rule}.both_by_chance": chance})

    def numbers(self) -> dict[str, Any]:
        """By rule, shares of the compared tokens; None without any."""
        names = ("both", "tower", "llm", "both_by_chance")
        return {rule: {name: self.number(f"{rule}.{name}", "tokens") for name in names} for rule in self.rules}


class LeadingNeurons(Sums):
    """Neurons of the tower that outliers activate most, over all outliers of all clips."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def add(self, sums: np.ndarray) -> None:
        """Add a clip: activations [T, blocks, I + 1] summed over a frame's outliers, and in the end their number."""
        activations = sums[..., :-1].sum(0)
        self.accumulate({"activations": activations, "outliers": sums[:, 0, -1].sum()})

    def numbers(self) -> list[tuple[int, int, float]]:
        """Block, counted from 1, neuron, and its mean activation, the largest first; none without outliers."""
        if not self["outliers"]:
            return []
        means = self["activations"] / self["outliers"]
        order = np.argsort(-means, axis=None, kind="stable")[: self.count]
        places = zip(*np.unravel_index(order, means.shape), strict=True)
        return [(int(block) + 1, int(neuron), float(means[block, neuron])) for block, neuron in places]
