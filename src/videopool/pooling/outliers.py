"""Tokens of high norm put in, or taken out.

Vision towers make some: tokens of little information whose norm is several times that of the others (arXiv
2309.16588). Norm and direction can be changed apart, as a language model that normalises its input layer by layer
sees directions, while an average over tokens feels norms.
"""

import torch
from torch import Tensor

from videopool.pooling.base import PoolingContext, number, one_of, precise, whole
from videopool.pooling.intervention import Intervention, norms_of

PLACEMENTS = ("random", "same", "border", "centre")
MODES = ("scale", "direction", "both")
REPLACEMENTS = ("neighbours", "frame")
AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


class InjectOutliers(Intervention):
    """Make outliers of some tokens. Places and direction come from the seed: the same in all clips of one size.

    Args:
        fraction: of the tokens, in 0..1, rounded to a whole number (halves up).
        factor: that norms are multiplied by, at least 0; without effect in mode "direction".
        mode: "scale" multiplies the norm and keeps the direction; "direction" gives all outliers one random
            direction and keeps their norms; "both" does both.
        placement: "random" anywhere in the clip; in each frame, and the same in all: "same" at random places,
            "border" at places nearest to the border, "centre" nearest to the centre; equally near ones at random.
        seed: of places and direction, which do not depend on each other.

    Raises:
        PoolingShapeError: a number is out of range, or there is no such mode or placement.
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
        self.mode = one_of("mode", mode, MODES)
        self.placement = one_of("placement", placement, PLACEMENTS)
        self.seed = whole("seed", seed)

    def places(self, frames: int, height: int, width: int) -> Tensor:
        """[T, H, W] true where an outlier is put."""
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
        made = precise(grid)
        if self.mode != "scale":
            made = norms_of(grid) * self.direction(grid.shape[-1]).to(made)
        if self.mode != "direction":
            made = made * self.factor
        return torch.where(chosen, made.to(grid.dtype), grid)

    @property
    def label(self) -> str:
        times = "" if self.mode == "direction" else f" x{self.factor:g}"
        return f"inject outliers {self.fraction:g} {self.mode}{times} {self.placement} seed {self.seed}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return {"outliers": int(self.places(frames, height, width).sum())}


class DropOutliers(Intervention):
    """Replace tokens whose norm is above so many medians by a mean of what is around them.

    The median is that of the norms in each clip. A token with a NaN or an infinite value is an outlier too, and
    does not count in the median; a clip of nothing else stays as it is.

    Args:
        threshold: in medians, at least 1.
        replacement: "neighbours" are the up to eight around it in its frame; "frame" is its frame. Only tokens
            that are no outliers count. Where a token has no such neighbour its frame counts, and where the frame
            has no such token the clip.

    Raises:
        PoolingShapeError: threshold is below 1, or there is no such replacement.
    """

    def __init__(self, threshold: float = 3.0, replacement: str = "neighbours") -> None:
        super().__init__()
        self.threshold = number("threshold", threshold, 1)
        self.replacement = one_of("replacement", replacement, REPLACEMENTS)
        self.limits = (self.threshold, float(REPLACEMENTS.index(replacement)))

    def outliers(self, grid: Tensor) -> Tensor:
        """[B, T, H, W] true where a token is one."""
        norms = norms_of(grid.detach()).squeeze(-1)
        finite = norms.where(norms.isfinite(), torch.nan)
        median = finite.flatten(1).nanquantile(0.5, dim=1)[:, None, None, None]
        return ~(finite <= self.threshold * median) & ~median.isnan()

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        dropped = self.outliers(grid)
        if not dropped.any():
            return grid
        values = precise(grid).masked_fill(dropped.unsqueeze(-1), 0.0)
        valid = (~dropped).to(values.dtype)
        of_frames, in_frames = values.sum(dim=(2, 3)), valid.sum(dim=(2, 3))  # [B, T, D], [B, T]
        of_clip, in_clip = of_frames.sum(dim=1, keepdim=True), in_frames.sum(dim=1, keepdim=True)
        of_frames = torch.where(in_frames.unsqueeze(-1) > 0, of_frames, of_clip)
        in_frames = torch.where(in_frames > 0, in_frames, in_clip)
        clip, frame, y, x = dropped.nonzero(as_tuple=True)  # M outliers
        sums, counts = of_frames[clip, frame], in_frames[clip, frame]  # [M, D], [M]
        if self.replacement == "neighbours":
            near, found = torch.zeros_like(sums), torch.zeros_like(counts)
            height, width = grid.shape[2:4]
            for down, right in AROUND:
                inside = (y + down >= 0) & (y + down < height) & (x + right >= 0) & (x + right < width)
                place = (clip, frame, (y + down).clamp(0, height - 1), (x + right).clamp(0, width - 1))
                near = near + values[place] * inside.unsqueeze(-1)
                found = found + valid[place] * inside
            sums, counts = torch.where(found.unsqueeze(-1) > 0, near, sums), torch.where(found > 0, found, counts)
        return grid.index_put((clip, frame, y, x), (sums / counts.unsqueeze(-1)).to(grid.dtype))

    @property
    def label(self) -> str:
        return f"drop outliers {self.threshold:g} {self.replacement}"
