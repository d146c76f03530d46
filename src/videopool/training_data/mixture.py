"""Several sources as one stream of examples, the same for the same seed, wherever it is entered."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from videopool.training_data.source import Example, Source

ORDER, SHUFFLE = 1, 2  # streams of random numbers


class Mixture:
    """Epochs of examples. Each epoch shows every source by its weight, all sources shuffled together.

    Args:
        sources: at least one.
        seed: of all order.
    """

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        self.sources, self.seed = list(sources), seed
        self.epoch = lru_cache(maxsize=2)(self._epoch)  # a batch may lie across two epochs
        self._lengths: list[int] = [0]  # examples before each epoch

    def _epoch(self, number: int) -> list[tuple[int, int]]:
        """Source and place within it of each example of an epoch, in order."""
        chosen: list[tuple[int, int]] = []
        for place, source in enumerate(self.sources):
            size = len(source.examples)
            # Rounds through the source, each in an order of its own, are dealt out to epochs without a gap.
            first, last = (int(source.weight * size * n) for n in (number, number + 1))
            for at in range(first, last):
                chosen.append((place, int(self._round(place, at // size)[at % size])))
        order = np.random.default_rng([SHUFFLE, self.seed, number]).permutation(len(chosen))
        return [chosen[i] for i in order]

    def _round(self, source: int, number: int) -> np.ndarray:
        return _permutation(self.seed, source, number, len(self.sources[source].examples))

    def length(self, epochs: int) -> int:
        """Examples of the first epochs."""
        while len(self._lengths) <= epochs:
            self._lengths.append(self._lengths[-1] + len(self.epoch(len(self._lengths) - 1)))
        return self._lengths[epochs]

    def at(self, place: int) -> tuple[int, Example]:
        """Epoch and example at a place of the endless stream."""
        epoch = max(0, len(self._lengths) - 2)
        while self.length(epoch + 1) <= place:
            epoch += 1
        while self.length(epoch) > place:
            epoch -= 1
        source, number = self.epoch(epoch)[place - self.length(epoch)]
        return epoch, self.sources[source].examples[number]


@lru_cache(maxsize=16)
def _permutation(seed: int, source: int, number: int, size: int) -> np.ndarray:
    return np.random.default_rng([ORDER, seed, source, number]).permutation(size)
