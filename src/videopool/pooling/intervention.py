"""Interventions: poolings that change tokens and keep the grid's shape, for a chain before a pooling.

A token's norm is its L2 norm at the stage of the pooling, computed in float32 at least; its direction is the token
divided by its norm. A token of zeros has no direction. The context stays unchanged.
"""

import itertools
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import GridPooling, PoolingContext, PoolingShapeError, fixed, precise
from videopool.pooling.checks import number, one_of, whole

REPLACEMENTS = ("neighbours", "frame")
DROPPED = ("outliers", "random", "others")


def norms_of(grid: Tensor) -> Tensor:
    """Norms [..., 1] of tokens [..., D]."""
    return fixed(torch.linalg.vector_norm(precise(grid), dim=-1, keepdim=True))


def scaled(grid: Tensor, factors: Tensor) -> Tensor:
    """Tokens [..., D] times factors [..., 1], in the tokens' dtype."""
    return (precise(grid) * factors).to(grid.dtype)


class Intervention(GridPooling):
    """A pooling that keeps the shape of the grid."""

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, width


class ClipNorm(Intervention):
    """Scale tokens with a norm above a limit down to it. NaN stays in place.

    Args:
        max_norm: the limit, above 0; or null.
        quantile: the limit is this quantile (0..1) of the clip's norms, interpolated linearly, without NaN; or null.

    Raises PoolingShapeError unless exactly one of max_norm and quantile is given.
    """

    def __init__(self, max_norm: float | None = None, quantile: float | None = None) -> None:
        super().__init__()
        if (max_norm is None) == (quantile is None):
            raise PoolingShapeError(f"say one of pooling.max_norm and pooling.quantile, got {max_norm!r}, {quantile!r}")
        if max_norm is not None:
            self.limits = (number("max_norm", max_norm, 0, above=True),)
            self._label = f"clip norm {max_norm:g}"
        else:
            self.quantile = number("quantile", quantile, 0, 1)
            self._label = f"clip norm q{self.quantile:g}"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        norms = norms_of(grid)
        if self.limits:
            return scaled(grid, self.limits[0] / norms.clamp(min=self.limits[0]))
        limit = norms.flatten(1).nanquantile(self.quantile, dim=1)[:, None, None, None, None]
        above = norms > limit
        return scaled(grid, torch.where(above, limit / norms.where(above, torch.ones_like(norms)), 1.0))


class RescaleNorm(Intervention):
    """Give all tokens one norm, so that only directions differ. Tokens of zeros and NaN stay.

    Args:
        norm: the norm, above 0; null: the mean of the clip's finite norms.
    """

    def __init__(self, norm: float | None = None) -> None:
        super().__init__()
        self.norm = None if norm is None else number("norm", norm, 0, above=True)
        self._label = f"rescale norm {'mean' if norm is None else f'{norm:g}'}"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        norms = norms_of(grid)
        finite = norms.where(norms.isfinite(), torch.nan)
        wanted = finite.nanmean(dim=(1, 2, 3), keepdim=True) if self.norm is None else self.norm
        return scaled(grid, wanted / norms.where(norms != 0, torch.ones_like(norms)))


class InjectOutliers(Intervention):
    """Turn some tokens into outliers. The seed alone gives places and direction, equally for all clips of a size.

    A language model that normalises its input layer by layer sees directions; an average over tokens feels norms. So
    each can be changed alone.

    Args:
        fraction: of the tokens, in 0..1, rounded to a whole number (halves up).
        factor: of the norms, at least 0; no effect in mode "direction".
        mode: "scale" multiplies norms and keeps directions; "direction" gives all outliers one random direction and
            keeps their norms; "both" does both.
        placement: "random" anywhere in the clip; or equal places in each frame: "same" random ones, "border" the
            nearest to the border, "centre" the nearest to the centre, ties at random.
        seed: of places and direction, independent of each other.
    """

    def __init__(
        self,
        fraction: float = 0.02,
        factor: float = 10.0,
        mode: str = "scale",
        placement: str = "random",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.fraction = number("fraction", fraction, 0, 1)
        self.factor = number("factor", factor, 0)
        self.mode = one_of("mode", mode, ("scale", "direction", "both"))
        self.placement = one_of("placement", placement, ("random", "same", "border", "centre"))
        self.seed = whole("seed", seed)
        times = "" if mode == "direction" else f" x{factor:g}"
        self._label = f"inject outliers {fraction:g} {mode}{times} {placement} seed {seed}"

    def places(self, frames: int, height: int, width: int) -> Tensor:
        """[T, H, W] true at the outliers."""
        generator = torch.Generator().manual_seed(self.seed)
        count = frames * height * width if self.placement == "random" else height * width
        order = torch.randperm(count, generator=generator)
        if self.placement in ("border", "centre"):
            y, x = torch.arange(height)[:, None], torch.arange(width)
            if self.placement == "border":
                far = torch.minimum(torch.minimum(y, height - 1 - y), torch.minimum(x, width - 1 - x))
            else:
                far = (2 * y - height + 1) ** 2 + (2 * x - width + 1) ** 2
            order = order[far.flatten()[order].argsort(stable=True)]
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[order[: int(self.fraction * count + 0.5)]] = True
        return chosen.view(-1, height, width).expand(frames, -1, -1)

    def direction(self, dim: int) -> Tensor:
        """[D] of norm 1, in float64."""
        drawn = torch.randn(dim, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        return drawn / drawn.norm()

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        chosen = self.places(*grid.shape[1:4]).to(grid.device).unsqueeze(-1)  # [T, H, W, 1]
        outliers = precise(grid)
        if self.mode != "scale":
            outliers = norms_of(grid) * self.direction(grid.shape[-1]).to(outliers)
        if self.mode != "direction":
            outliers = outliers * self.factor
        return torch.where(chosen, outliers.to(grid.dtype), grid)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"outliers": int(self.places(frames, height, width).sum())}


class DropOutliers(Intervention):
    """Replace tokens whose norm exceeds a threshold, or for control others, by the mean of tokens around them.

    Vision towers make tokens of little information and several times the usual norm (arXiv 2309.16588). A token with a
    NaN or an infinite value is an outlier too. A clip without finite norms stays unchanged.

    Args:
        threshold: in medians of the clip's finite norms, at least 1.
        replacement: "neighbours" are the up to eight around it in its frame, "frame" is its frame; what is replaced
            does not count. Without such a neighbour the frame replaces it, without such a token in the frame the clip.
        which: "outliers"; "random": as many ordinary tokens of each frame, if it has so many; "others": all ordinary
            tokens, so that outliers alone say something. A clip without outliers stays unchanged.
        seed: of "random", which draws equally for all clips of a size.
    """

    def __init__(
        self, threshold: float = 3.0, replacement: str = "neighbours", which: str = "outliers", seed: int = 0
    ) -> None:
        super().__init__()
        self.threshold = number("threshold", threshold, 1)
        self.replacement = one_of("replacement", replacement, REPLACEMENTS)
        self.which, self.seed = one_of("which", which, DROPPED), whole("seed", seed)
        drawn = (float(self.seed),) if which == "random" else ()
        own = (float(DROPPED.index(which)), *drawn) if which != "outliers" else ()
        self.limits = (self.threshold, float(REPLACEMENTS.index(replacement)), *own)
        kind = {"outliers": "outliers", "random": f"random as outliers seed {seed}", "others": "all but outliers"}
        self._label = f"drop {kind[which]} {threshold:g} {replacement}"

    def outliers(self, grid: Tensor) -> Tensor:
        """[B, T, H, W] true at the outliers."""
        norms = norms_of(grid.detach()).squeeze(-1)
        finite = norms.where(norms.isfinite(), torch.nan)
        median = finite.flatten(1).nanquantile(0.5, dim=1)[:, None, None, None]
        return ~(finite <= self.threshold * median) & ~median.isnan()

    def dropped(self, grid: Tensor) -> Tensor:
        """[B, T, H, W] true at what is replaced."""
        outliers = self.outliers(grid)
        if self.which == "outliers":
            return outliers
        large = outliers & norms_of(grid.detach()).squeeze(-1).isfinite()
        if self.which == "others":
            return ~outliers & large.flatten(1).any(1)[:, None, None, None]
        drawn = torch.rand(outliers[0].flatten(1).shape, generator=torch.Generator().manual_seed(self.seed))
        ranks = drawn.to(grid.device).masked_fill(outliers.flatten(2), 2.0).argsort(-1).argsort(-1)  # outliers last
        return (ranks < large.flatten(2).sum(-1, keepdim=True)).view_as(outliers) & ~outliers

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        dropped = self.dropped(grid)
        if not dropped.any():
            return grid
        ones = torch.ones_like(dropped, dtype=precise(grid).dtype).unsqueeze(-1)
        absent = dropped.unsqueeze(-1) | ~norms_of(grid.detach()).isfinite()
        kept = torch.cat([precise(grid), ones], dim=-1).masked_fill(absent, 0.0)  # the last feature counts
        frames = kept.sum(dim=(2, 3))  # [B, T, D + 1]
        frames = _or_else(frames, frames.sum(dim=1, keepdim=True))
        clip, frame, y, x = dropped.nonzero(as_tuple=True)  # M outliers
        sums = frames[clip, frame]  # [M, D + 1]
        if self.replacement == "neighbours":
            near, padded = torch.zeros_like(sums), functional.pad(kept, (0, 0, 1, 1, 1, 1))
            for down, right in itertools.product(range(3), repeat=2):
                near = near + padded[clip, frame, y + down, x + right]
            sums = _or_else(near, sums)
        return grid.index_put((clip, frame, y, x), (sums[:, :-1] / sums[:, -1:]).to(grid.dtype))


def _or_else(sums: Tensor, others: Tensor) -> Tensor:
    """Sums [..., D + 1] that count tokens in their last feature; the others where there are none."""
    return torch.where(sums[..., -1:] > 0, sums, others)


class Shuffle(Intervention):
    """Base of the two shuffles: another order, drawn from a seed, equal for all clips of a size."""

    axis: ClassVar[str]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = whole("seed", seed)
        self._label = f"shuffle {self.axis} seed {seed}"

    def order(self, count: int) -> list[int]:
        """A permutation of so many places: each but the identity is equally likely."""
        generator = torch.Generator().manual_seed(self.seed)
        order = list(range(count))
        while order == list(range(count)) and count > 1:
            order = torch.randperm(count, generator=generator).tolist()
        return order


class ShuffleTime(Shuffle):
    """Frames in another order."""

    axis = "time"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid[:, self.order(grid.shape[1])]

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"order": self.order(frames)}


class ShuffleSpace(Shuffle):
    """Patches of each frame in another order, equal in all frames: motion remains, but in pieces."""

    axis = "space"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        height, width = grid.shape[2:4]
        return grid.flatten(2, 3)[:, :, self.order(height * width)].unflatten(2, (height, width))

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"order": self.order(height * width)}
