"""Norms at one stage of the model, clip after clip, in memory that does not grow with the clips.

Tokens of norm 0 and tokens that hold a NaN or an infinity are counted and are in no other number. Means over
clips give each clip the same weight; all else gives each token the same weight.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from videopool.norms.histogram import BINS, LogHistogram
from videopool.norms.moments import Moments
from videopool.norms.outliers import GAP, IN_CLIP, OutlierRules
from videopool.norms.places import border, centre, low_texture
from videopool.norms.ranks import gini, spearman
from videopool.norms.tally import Tally
from videopool.norms.token_norms import frame_cosines, token_norms

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


@dataclass(frozen=True)
class ClipNorms:
    """Norms of the tokens of one clip at one stage.

    Attributes:
        norms: [N] or [T, H, W].
        valid: of the same shape; false where a norm is 0 or not finite.
        outliers: of the same shape, by rule.
    """

    norms: np.ndarray
    valid: np.ndarray
    outliers: dict[str, np.ndarray]


class StageNorms:
    """What is known of the norms at one stage.

    Args:
        p: of the norm.
        rules: for outliers.
    """

    def __init__(self, p: float, rules: OutlierRules) -> None:
        self.p, self.rules = p, rules
        self.histogram, self.moments, self.tally = LogHistogram(), Moments(), Tally()

    def add(self, tokens: Tensor, texture: np.ndarray | None = None) -> ClipNorms:
        """Add a clip.

        Args:
            tokens: [T, H, W, D] where they are cells of a grid, else [N, D].
            texture: [T, H, W] of what the cells show; used where the tokens' grid is of that shape.
        """
        norms = token_norms(tokens, self.p).cpu().double().numpy()
        valid = np.isfinite(norms) & (norms > 0)
        tally = self.tally
        tally.add("clips", 1)
        tally.add("tokens", norms.size)
        tally.add("zero", (norms == 0).sum())
        tally.add("not_finite", (~np.isfinite(norms)).sum())
        values = norms[valid]
        outliers = {rule: np.zeros(norms.shape, bool) for rule in IN_CLIP}
        clip = ClipNorms(norms, valid, outliers)
        if not values.size:
            return clip
        self.histogram.add(values)
        self.moments.add(values)
        tally.add("used_clips", 1)
        tally.add("used", values.size)
        tally.add("gini_in_clip", gini(values))
        tally.add("max_over_median_in_clip", values.max() / np.median(values))
        for rule, cutoff in self.rules.cutoffs(values).items():
            tally.add(f"{rule}.undefined_clips", cutoff is None)
            if cutoff is not None:
                tally.add(f"{rule}.cutoff", cutoff)
                tally.add(f"{rule}.cutoff.clips", 1)
                outliers[rule] = valid & (norms > cutoff)
            tally.add(f"{rule}.outliers", outliers[rule].sum())
            tally.add(f"{rule}.clips", bool(outliers[rule].any()))
        if norms.ndim == 3:
            self._add_places(clip)
            self._add_times(clip, tokens)
            if texture is not None and texture.shape == norms.shape:
                self._add_texture(clip, texture)
        return clip

    def _add_places(self, clip: ClipNorms) -> None:
        tally, valid = self.tally, clip.valid
        height, width = valid.shape[1:]
        regions = {"border": border(height, width), "centre": centre(height, width)}
        tally.add("map.tokens", valid.sum(0))
        tally.add("map.norm", np.where(valid, clip.norms, 0).sum(0))
        for name, region in regions.items():
            tally.add(f"{name}.tokens", (valid & region).sum())
        tally.add("placed", valid.sum())
        for rule, chosen in clip.outliers.items():
            tally.add(f"map.{rule}", chosen.sum(0))
            for name, region in regions.items():
                tally.add(f"{name}.{rule}", (chosen & region).sum())

    def _add_times(self, clip: ClipNorms, grid: Tensor) -> None:
        """Sums by frame and, for pairs of frames, by their distance."""
        tally, valid = self.tally, clip.valid
        frames, cells = len(valid), valid[0].size
        tally.add("frame.tokens", valid.sum((1, 2)))
        tally.add("frame.norm", np.where(valid, clip.norms, 0).sum((1, 2)))
        cosines = [matrix.numpy() for matrix in frame_cosines(grid)]
        for name, matrix in zip(("cosine.sum", "cosine.pairs"), cosines, strict=True):
            tally.add(name, np.array([matrix.diagonal(distance).sum() for distance in range(frames)]))
        for rule, chosen in clip.outliers.items():
            flat = chosen.reshape(frames, -1).astype(float)
            counts = flat.sum(1)
            tally.add(f"frame.{rule}", counts)
            both, by_chance = flat @ flat.T, np.outer(counts, counts) / cells
            distances = range(frames)
            tally.add(f"again.{rule}", np.array([both.diagonal(d).sum() for d in distances]))
            tally.add(f"again_by_chance.{rule}", np.array([by_chance.diagonal(d).sum() for d in distances]))
            tally.add(f"could_be_again.{rule}", np.array([counts[: frames - d].sum() for d in distances]))

    def _add_texture(self, clip: ClipNorms, texture: np.ndarray) -> None:
        low = low_texture(texture)
        self.tally.add("textured", clip.valid.sum())
        self.tally.add("low_texture.tokens", (clip.valid & low).sum())
        for rule, chosen in clip.outliers.items():
            self.tally.add(f"textured.{rule}", chosen.sum())
            self.tally.add(f"low_texture.{rule}", (chosen & low).sum())
        correlation = spearman(texture[clip.valid], clip.norms[clip.valid])
        if correlation is not None:
            self.tally.add("texture_spearman", correlation)
            self.tally.add("texture_spearman.clips", 1)

    def numbers(self) -> dict[str, Any]:
        """The numbers of norms.json; None for what is undefined or was not measured."""
        tally, histogram, moments = self.tally, self.histogram, self.moments
        median = histogram.quantile(0.5)
        high = float(histogram.extremes[1])
        return {
            "clips": int(tally["clips"]),
            "tokens": int(tally["tokens"]),
            "zero": int(tally["zero"]),
            "not_finite": int(tally["not_finite"]),
            "mean": moments.mean,
            "std": moments.std,
            "min": None if median is None else float(histogram.extremes[0]),
            "max": None if median is None else high,
            "quantiles": {f"{share:g}": histogram.quantile(share) for share in QUANTILES},
            "max_over_median": None if median is None else high / median,
            "max_over_median_in_clip": tally.number("max_over_median_in_clip", "used_clips"),
            "excess_kurtosis": moments.excess_kurtosis,
            "gini": histogram.gini(),
            "gini_in_clip": tally.number("gini_in_clip", "used_clips"),
            "neighbour_cosine": _at(self._by_distance("cosine.sum", "cosine.pairs"), 1),
            "border_area": tally.number("border.tokens", "placed"),
            "centre_area": tally.number("centre.tokens", "placed"),
            "low_texture_area": tally.number("low_texture.tokens", "textured"),
            "texture_spearman": tally.number("texture_spearman", "texture_spearman.clips"),
            "outliers": {rule: self._of_rule(rule) for rule in IN_CLIP},
            GAP: self._gap(),
        }

    def _of_rule(self, rule: str) -> dict[str, Any]:
        tally = self.tally
        again, chance = self._by_distance(f"again.{rule}", f"could_be_again.{rule}"), self._chance(rule)
        return {
            "cutoff": tally.number(f"{rule}.cutoff", f"{rule}.cutoff.clips"),
            "share": tally.number(f"{rule}.outliers", "used"),
            "clips_with": tally.number(f"{rule}.clips", "used_clips"),
            "undefined_clips": int(tally[f"{rule}.undefined_clips"]),
            "border": tally.number(f"border.{rule}", f"{rule}.outliers"),
            "centre": tally.number(f"centre.{rule}", f"{rule}.outliers"),
            "low_texture": tally.number(f"low_texture.{rule}", f"textured.{rule}"),
            "next_frame": _at(again, 1),
            "next_frame_by_chance": _at(chance, 1),
        }

    def _gap(self) -> dict[str, Any]:
        gap = self.histogram.gap_above_median()
        if gap is None:
            return {"ratio": None, "cutoff": None, "share": 0.0 if self.histogram.total else None}
        wide = gap.ratio >= self.rules.gap
        return {
            "ratio": gap.ratio,
            "cutoff": gap.cutoff if wide else None,
            "share": gap.above / self.histogram.total if wide else 0.0,
        }

    def _by_distance(self, above: str, below: str) -> np.ndarray:
        """[D] a ratio by distance in frames, from 0 on."""
        return np.atleast_1d(self.tally.ratio(above, below))

    def _chance(self, rule: str) -> np.ndarray:
        return self._by_distance(f"again_by_chance.{rule}", f"could_be_again.{rule}")

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of norms.safetensors, by name; a value that is undefined is NaN."""
        found = {
            "histogram.counts": self.histogram.counts[1:-1],
            "histogram.outside": self.histogram.counts[[0, -1]],
            "histogram.edges": LogHistogram.edges(),
        }
        assert len(found["histogram.counts"]) == BINS
        if "frame.tokens" not in self.tally.sums:
            return found
        found |= {
            "map.norm": self.tally.ratio("map.norm", "map.tokens"),
            "frame.norm": self.tally.ratio("frame.norm", "frame.tokens"),
            "distance.cosine": self._by_distance("cosine.sum", "cosine.pairs"),
        }
        for rule in IN_CLIP:
            found |= {
                f"map.{rule}": self.tally.ratio(f"map.{rule}", "map.tokens"),
                f"frame.{rule}": self.tally.ratio(f"frame.{rule}", "frame.tokens"),
                f"distance.{rule}": self._by_distance(f"again.{rule}", f"could_be_again.{rule}"),
                f"distance.{rule}.by_chance": self._chance(rule),
            }
        return found

    def state(self) -> dict[str, np.ndarray]:
        """All that add() has gathered."""
        parts = {f"tally.{name}": values for name, values in self.tally.sums.items()}
        histogram = self.histogram
        return {
            **parts,
            "histogram.counts": histogram.counts,
            "histogram.sums": histogram.sums,
            "histogram.extremes": histogram.extremes,
            "moments": self.moments.values,
        }

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state. Raises KeyError if something is missing."""
        self.histogram.counts = state["histogram.counts"]
        self.histogram.sums = state["histogram.sums"]
        self.histogram.extremes = state["histogram.extremes"]
        self.moments.values = state["moments"]
        prefix = "tally."
        self.tally.sums = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _at(values: np.ndarray, place: int) -> float | None:
    """A value by its place; None where there is none."""
    return float(values[place]) if len(values) > place and not np.isnan(values[place]) else None
