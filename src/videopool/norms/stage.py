"""Norms at one stage of the model, clip after clip, in constant memory.

Tokens of norm 0 and tokens with a NaN or an infinity are counted and enter no other number. Means over clips give each
clip the same weight; all else gives each token the same weight.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videopool.norms.components import components
from videopool.norms.outliers import GAP, MASSIVE, PHI, OutlierRules
from videopool.norms.statistics import LogHistogram, Moments, Sums, gini, spearman
from videopool.norms.token_norms import border, centre, frame_cosines, low_texture, token_norms

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
THIN = 0.2  # of the tokens above a gap, at most so many are in it
NAMED = 5  # dimensions that norms.json names
MIXED = "mixed"  # among the sums if grids of the clips differ in their size

Placed = tuple[np.ndarray, tuple[int, int, int]]  # flat places [N] in a grid of size (T, H, W)


@dataclass(frozen=True)
class ClipNorms:
    """Norms of the tokens of one clip at one stage, [N] or [T, H, W]."""

    norms: np.ndarray
    valid: np.ndarray  # false for a norm that is 0 or not finite
    outliers: dict[str, np.ndarray]  # by rule
    phi: np.ndarray | None = None  # 0 where not valid


class StageNorms(Sums):
    """Lp norms at one stage, summed over clips."""

    def __init__(self, p: float, rules: OutlierRules) -> None:
        super().__init__()
        self.p, self.rules = p, rules
        self.histogram, self.moments = LogHistogram(), Moments()

    def add(self, tokens: Tensor, texture: np.ndarray | None = None, placed: Placed | None = None) -> ClipNorms:
        """Add a clip: tokens [T, H, W, D] of a grid, else [N, D]; texture [T, H, W], ignored for other tokens.

        placed: where in a grid tokens [N, D] came from, for maps and profiles.
        """
        tokens = tokens.contiguous()  # once: without CLS, they are not
        lengths = token_norms(tokens)
        norms = (lengths if self.p == 2 else token_norms(tokens, self.p)).cpu().double().numpy()
        finite = np.isfinite(norms)
        valid = finite & (norms > 0)
        outliers = {rule: np.zeros(norms.shape, bool) for rule in self.rules.in_clip}
        phi = np.zeros(norms.shape)
        clip = ClipNorms(norms, valid, outliers, phi)
        self.accumulate({"clips": 1, "tokens": norms.size, "zero": (norms == 0).sum(), "not_finite": (~finite).sum()})
        values = norms[valid]
        if not values.size:
            return clip
        self.histogram.add(values)
        self.moments.add(values)
        self.accumulate({"used_clips": 1, "used": values.size, "gini_in_clip": gini(values)})
        self.accumulate({"max_over_median_in_clip": values.max() / np.median(values)})
        usable = tokens.flatten(0, -2), lengths.flatten()
        if not valid.all():
            rows = torch.from_numpy(np.flatnonzero(valid)).to(tokens.device)
            usable = usable[0][rows], usable[1][rows]
        own = components(*usable, self.rules.sink_dimensions)
        cutoffs = self.rules.cutoffs(values, own.median)
        phi[valid] = own.phi
        judged = {MASSIVE: own.largest, PHI: own.phi}
        for rule, cutoff in cutoffs.items():
            self.accumulate({f"{rule}.undefined_clips": cutoff is None})
            self.add_mean(f"{rule}.cutoff", cutoff)
            chosen = clip.outliers[rule]
            chosen[valid] = judged.get(rule, values) > (np.inf if cutoff is None else cutoff)
            self.accumulate({f"{rule}.outliers": chosen.sum(), f"{rule}.clips": chosen.any()})
        self.accumulate({
            "components.largest": own.largest.max(),
            "components.phi": own.phi.max(),
            "dimensions.massive": own.massive(cutoffs[MASSIVE] or np.inf),
            "dimensions.sink": np.bincount(own.sink_dimensions, minlength=tokens.shape[-1]),
        })  # fmt: skip
        self.add_mean("components.largest_over_median", float(own.largest.max()) / own.median if own.median else None)
        self.add_mean("phi_spearman", spearman(own.phi, values))
        if norms.ndim == 3:
            self._add_grid(clip, tokens, lengths)
            if texture is not None and texture.shape == norms.shape:
                self._add_texture(clip, texture)
        elif placed is not None:
            places, size = placed
            there = places >= 0
            self._add_maps(clip, lambda own: np.bincount(places[there], own[there], prod(size)).reshape(size))
        return clip

    def _add_maps(self, clip: ClipNorms, gridded: Callable[[np.ndarray], np.ndarray] = np.asarray) -> None:
        """Sums by frame, and by place, of values of tokens as values of a grid [T, H, W].

        Grids of several sizes have no places in common: from the second size on there are none.
        """
        layers = {"tokens": clip.valid, "norm": np.where(clip.valid, clip.norms, 0), **clip.outliers}
        cells = {name: gridded(values) for name, values in layers.items()}
        self.accumulate({f"frame.{name}": own.sum((1, 2)) for name, own in cells.items()})
        maps = {f"map.{name}": own.sum(0) for name, own in cells.items()}
        if self["map.tokens"].shape not in ((), maps["map.tokens"].shape):
            self.sums = {name: own for name, own in self.sums.items() if name not in maps} | {MIXED: np.ones(())}
        if MIXED not in self.sums:
            self.accumulate(maps)

    def _add_grid(self, clip: ClipNorms, grid: Tensor, lengths: Tensor) -> None:
        """Sums by place, by frame and, for pairs of frames, by their distance."""
        frames, height, width = clip.valid.shape
        self._add_maps(clip)
        self.accumulate({"placed": clip.valid.sum()})
        self._add_region("border", border(height, width), clip)
        self._add_region("centre", centre(height, width), clip)
        sums, pairs = frame_cosines(grid, lengths)
        self.accumulate({"cosine.sum": _by_distance(sums.numpy()), "cosine.pairs": _by_distance(pairs.numpy())})
        marked = np.stack([chosen.reshape(frames, -1) for chosen in clip.outliers.values()]).astype(float)
        counts = marked.sum(2)
        again = _by_distance(marked @ marked.swapaxes(1, 2))
        by_chance = _by_distance(counts[:, :, None] * counts[:, None] / marked.shape[2])
        for rule, *found in zip(clip.outliers, again, by_chance, counts.cumsum(1)[:, ::-1], strict=True):
            names = ("again", "again_by_chance", "could_be_again")
            self.accumulate({f"{name}.{rule}": own for name, own in zip(names, found, strict=True)})

    def _add_texture(self, clip: ClipNorms, texture: np.ndarray) -> None:
        self._add_region("low_texture", low_texture(texture), clip)
        textured = {f"textured.{rule}": chosen.sum() for rule, chosen in clip.outliers.items()}
        self.accumulate({"textured": clip.valid.sum(), **textured})
        self.add_mean("texture_spearman", spearman(texture[clip.valid], clip.norms[clip.valid]))

    def _add_region(self, name: str, region: np.ndarray, clip: ClipNorms) -> None:
        for part, chosen in {"tokens": clip.valid, **clip.outliers}.items():
            self.accumulate({f"{name}.{part}": (chosen & region).sum()})

    def numbers(self) -> dict[str, Any]:
        """The numbers of norms.json; None if undefined or not measured."""
        histogram, moments = self.histogram, self.moments
        median = histogram.quantile(0.5)
        low, high = (None, None) if median is None else map(float, histogram.extremes)
        neighbours = {
            name: float(values[1]) if len(values) > 1 and not np.isnan(values[1]) else None
            for name, values in self._distances().items()
        }
        return {
            **{name: int(self[name]) for name in ("clips", "tokens", "zero", "not_finite")},
            "mean": moments.mean,
            "std": moments.std,
            "min": low,
            "max": high,
            "quantiles": {f"{share:g}": histogram.quantile(share) for share in QUANTILES},
            "max_over_median": None if high is None or median is None else high / median,
            "max_over_median_in_clip": self.number("max_over_median_in_clip", "used_clips"),
            "excess_kurtosis": moments.excess_kurtosis,
            "gini": histogram.gini(),
            "gini_in_clip": self.number("gini_in_clip", "used_clips"),
            "neighbour_cosine": neighbours["cosine"],
            "border_area": self.number("border.tokens", "placed"),
            "centre_area": self.number("centre.tokens", "placed"),
            "low_texture_area": self.number("low_texture.tokens", "textured"),
            "texture_spearman": self.mean("texture_spearman"),
            "outliers": {
                rule: {
                    "cutoff": self.mean(f"{rule}.cutoff"),
                    "share": self.number(f"{rule}.outliers", "used"),
                    "clips_with": self.number(f"{rule}.clips", "used_clips"),
                    "undefined_clips": int(self[f"{rule}.undefined_clips"]),
                    "border": self.number(f"border.{rule}", f"{rule}.outliers"),
                    "centre": self.number(f"centre.{rule}", f"{rule}.outliers"),
                    "low_texture": self.number(f"low_texture.{rule}", f"textured.{rule}"),
                    "next_frame": neighbours[rule],
                    "next_frame_by_chance": neighbours[f"{rule}.by_chance"],
                }
                for rule in self.rules.in_clip
            },
            GAP: self._gap(),
            "components": {
                "largest": self.number("components.largest", "used_clips"),
                "largest_over_median": self.mean("components.largest_over_median"),
                "massive_dimensions": self._leading("dimensions.massive", NAMED),
                "sink_dimensions": self._leading("dimensions.sink", self.rules.sink_dimensions),
                "sink_clips": self._shared_sinks(),
                "largest_phi": self.number("components.phi", "used_clips"),
                "phi_spearman": self.mean("phi_spearman"),
            },
        }

    def _leading(self, name: str, most: int) -> list[int]:
        """The dimensions with the largest sums, the largest first; none with a sum of 0."""
        sums = np.atleast_1d(self[name])
        return [int(place) for place in np.argsort(-sums, kind="stable")[:most] if sums[place] > 0]

    def _shared_sinks(self) -> float | None:
        """Share of clips of which the most frequent sink dimension is one."""
        return float(self["dimensions.sink"].max() / self["used_clips"]) if self["used_clips"] else None

    def _gap(self) -> dict[str, Any]:
        """The widest empty gap, or if it is not wide enough, the widest that is nearly so."""
        total = self.histogram.total
        for thin in (0.0, THIN):
            gap = self.histogram.gap_above_median(thin)
            if gap is not None and gap.ratio >= self.rules.gap:
                return {"ratio": gap.ratio, "cutoff": gap.cutoff, "share": gap.above / total}
        return {"ratio": gap and gap.ratio, "cutoff": None, "share": 0.0 if total else None}

    def _distances(self) -> dict[str, np.ndarray]:
        """Series [D] by distance in frames, from 0 on: cosine; for each rule outliers again, and by chance."""
        series = {"cosine": self.ratio("cosine.sum", "cosine.pairs")}
        for rule in self.rules.in_clip:
            series[rule] = self.ratio(f"again.{rule}", f"could_be_again.{rule}")
            series[f"{rule}.by_chance"] = self.ratio(f"again_by_chance.{rule}", f"could_be_again.{rule}")
        return {name: np.atleast_1d(values) for name, values in series.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of norms.safetensors, by name; NaN if undefined."""
        arrays: dict[str, np.ndarray] = {
            "histogram.counts": self.histogram.counts[1:-1],
            "histogram.outside": self.histogram.counts[[0, -1]],
            "histogram.edges": LogHistogram.edges(),
            **{name: self[name] for name in ("dimensions.massive", "dimensions.sink") if name in self.sums},
        }
        if "frame.tokens" not in self.sums:
            return arrays
        for kind in ("frame",) if MIXED in self.sums else ("map", "frame"):
            for name in ("norm", *self.rules.in_clip):
                arrays[f"{kind}.{name}"] = self.ratio(f"{kind}.{name}", f"{kind}.tokens")
        distances = self._distances() if "cosine.pairs" in self.sums else {}
        return arrays | {f"distance.{name}": values for name, values in distances.items()}

    def state(self) -> dict[str, np.ndarray]:
        """All that add() has gathered, to be saved."""
        return {
            **{f"tally.{name}": values for name, values in self.sums.items()},
            **{f"histogram.{name}": values for name, values in vars(self.histogram).items()},
            "moments": self.moments.values,
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a state. Raises KeyError for an incomplete one."""
        for name in vars(self.histogram):
            setattr(self.histogram, name, state[f"histogram.{name}"])
        self.moments.values = state["moments"]
        super().load({name.removeprefix("tally."): v for name, v in state.items() if name.startswith("tally.")})


def _by_distance(pairs: np.ndarray) -> np.ndarray:
    """Sums [..., T] of the upper diagonals of pairs of frames [..., T, T]."""
    return np.stack([np.trace(pairs, distance, -2, -1) for distance in range(pairs.shape[-1])], -1)
