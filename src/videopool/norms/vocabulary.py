"""What visual tokens say in words: the entry of the vocabulary nearest to each, by cosine.

Three kinds, after arXiv 2603.00510, here by a rule that needs no clustering: a sink is an outlier; another token is
dead if its nearest entry is nearest to some token of more than half of the clips, whatever they show, else alive.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from videopool.norms.stage import ClipNorms
from videopool.norms.statistics import Sums
from videopool.pooling.base import precise

NAMED = 5  # entries that norms.json names
COSINES = 2**24  # held at once
SHARED = 0.5  # share of clips that a dead token's entry exceeds


def unit(vectors: Tensor) -> Tensor:
    """Vectors [N, D] of length 1, in float32 at least; 0 stays 0."""
    return torch.nn.functional.normalize(precise(vectors), dim=-1)


def nearest(tokens: Tensor, entries: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The entry [N] of a vocabulary of unit vectors [V, D] nearest to each token [N, D], and its cosine [N].

    The first of equal ones; entries of 0 are none; a token that is 0 or not finite has any.
    """
    empty = (~entries.any(dim=-1)).nonzero()[:, 0]
    places, cosines = [], []
    for some in unit(tokens).split(max(1, COSINES // len(entries))):
        cosine, place = (some @ entries.T).index_fill_(1, empty, -2.0).max(dim=-1)
        places.append(place.cpu())
        cosines.append(cosine.double().cpu())
    return torch.cat(places).numpy(), torch.cat(cosines).numpy()


class VocabularyKinds(Sums):
    """Kinds of tokens at one stage, summed over clips; `rule` marks sinks."""

    def __init__(self, entries: int, rule: str) -> None:
        super().__init__()
        self.entries, self.rule = entries, rule

    def add(self, places: np.ndarray, cosines: np.ndarray, clip: ClipNorms) -> None:
        """Add a clip: the entries nearest to its tokens [N], and their cosines."""
        valid = clip.valid.reshape(-1)
        sink = clip.outliers[self.rule].reshape(-1)
        counts = np.bincount(places[valid & ~sink], minlength=self.entries)
        totals = {"used_clips": valid.any(), "tokens": valid.sum(), "sinks": sink.sum(), "cosine": cosines[valid].sum()}
        self.accumulate({**totals, "entry.tokens": counts, "entry.clips": counts > 0})

    def numbers(self) -> dict[str, Any]:
        """The numbers of norms.json; None if undefined: what is dead takes two clips."""
        counts, clips, used = (self[name] for name in ("entry.tokens", "entry.clips", "used_clips"))
        tokens, known = float(self["tokens"]), used > 1
        common = clips > SHARED * used
        dead = np.where(common, counts, 0)
        order = np.argsort(-np.atleast_1d(dead), kind="stable")[:NAMED]
        return {
            "sink": self.number("sinks", "tokens"),
            "dead": float(dead.sum()) / tokens if known else None,
            "alive": float(np.where(common, 0, counts).sum()) / tokens if known else None,
            "entries": int((counts > 0).sum()),
            "dead_entries": [int(place) for place in order if dead[place] > 0] if known else [],
            "cosine": self.number("cosine", "tokens"),
        }
