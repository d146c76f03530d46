"""What a pooling does with outliers: which patches it keeps, merges or drops, against chance, norms and saliency."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from videopool.norms.stage import ClipNorms
from videopool.norms.statistics import Sums, correlation, ranks

FATES = ("dropped", "merged", "kept")  # their numbers are the ranks of what is kept
KEPT = FATES.index("kept")
EVERY = ""  # the task of all clips


def jaccard_indices(scores: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, float]:
    """Jaccard index of the kept patches and of as many with the largest scores; none if all or none are kept."""
    count, every = int(kept.sum()), kept.size
    if not 0 < count < every:
        return {}
    sets = {name: np.zeros(every, bool) for name in scores}
    for name, values in scores.items():
        sets[name][np.argsort(-values, kind="stable")[:count]] = True
    sets["kept"] = kept
    shared = count**2 / every  # expected of two random sets
    return {
        **{f"{a}.{b}.jaccard": (sets[a] & sets[b]).sum() / (sets[a] | sets[b]).sum() for a, b in combinations(sets, 2)},
        "jaccard_by_chance": shared / (2 * count - shared),
    }


class Overlap(Sums):
    """Fates of patches under one pooling, summed over clips, for all clips and for those with questions of a task."""

    def __init__(self, rules: Sequence[str]) -> None:
        super().__init__()
        self.rules = rules

    def add(
        self, fates: np.ndarray, tower: ClipNorms, saliency: np.ndarray | None = None, tasks: Iterable[str] = ()
    ) -> None:
        """Add a clip: the fate [N] of each patch, norms at the tower's feature layer, and saliency [N].

        By chance: as many patches of each fate, at random places of the clip. Patches of norm 0 or with a NaN count
        nowhere.
        """
        valid = tower.valid.reshape(-1)
        own, count = fates[valid], int(valid.sum())
        if not count:
            return
        sums: dict[str, float] = {"clips": 1, "patches": count}
        for number, fate in enumerate(FATES):
            there = own == number
            sums[fate] = there.sum()
            for rule in self.rules:
                chosen = tower.outliers[rule].reshape(-1)[valid]
                sums[f"{rule}.{fate}"] = (there & chosen).sum()
                sums[f"{rule}.{fate}_by_chance"] = there.mean() * chosen.sum()
        scores = {"norm": tower.norms, "phi": tower.phi, "saliency": saliency}
        values = {name: each.reshape(-1)[valid] for name, each in scores.items() if each is not None}
        ranked = {name: ranks(each) for name, each in {**values, "kept": own}.items()}
        means = {f"{a}.{b}.spearman": correlation(ranked[a], ranked[b]) for a, b in combinations(ranked, 2)}
        means |= jaccard_indices(values, own == KEPT)
        for task in dict.fromkeys((EVERY, *tasks)):
            self.accumulate({f"{task}/{name}": value for name, value in sums.items()})
            for name, mean in means.items():
                self.add_mean(f"{task}/{name}", mean)

    def numbers(self) -> dict[str, Any]:
        """By task, "" for all clips; None if undefined."""
        tasks = [name.removesuffix("/clips") for name in self.sums if name.endswith("/clips")]
        return {task: self._of(task) for task in tasks}

    def _of(self, task: str) -> dict[str, Any]:
        pairs = combinations(("norm", "phi", "saliency", "kept"), 2)
        names = [f"{fate}{ending}" for fate in FATES for ending in ("", "_by_chance")]
        outliers = {}
        for rule in self.rules:
            values = {name: float(self[f"{task}/{rule}.{name}"]) for name in names}
            count = sum(values[fate] for fate in FATES)
            shares = {name: value / count if count else None for name, value in values.items()}
            outliers[rule] = {"count": round(count), **shares}
        return {
            "clips": int(self[f"{task}/clips"]),
            **{fate: self.number(f"{task}/{fate}", f"{task}/patches") for fate in FATES},
            "outliers": outliers,
            "agreement": {
                f"{a}-{b}": {kind: self.mean(f"{task}/{a}.{b}.{kind}") for kind in ("spearman", "jaccard")}
                for a, b in pairs
            },
            "jaccard_by_chance": self.mean(f"{task}/jaccard_by_chance"),
        }
