"""Tokens that are alike averaged into one, pair after pair: ToMe's bipartite soft matching (arXiv 2210.09461).

A step (`bipartite_soft_matching` and `merge_wavg` in tome/merge.py of facebookresearch/ToMe): tokens at even places
each look for the most similar token at an odd place, by cosine; the r most similar pairs are merged, a token counting
as many times as patches are in it. Several may merge into one. At most half of the tokens can go in a step.

ToMe merges inside a tower and compares attention keys; here features are compared, as a pooling sees nothing else.
ToMe leaves tokens in the order of their similarity; here they keep their places, and of a merged pair the odd one's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import Pooling, PoolingContext, PoolingShapeError, one_of, positive, precise, whole

WITHIN = ("frame", "clip")
AT_ONCE = 2**25  # similarities held at a time
NEVER = -2.0  # less than any cosine


def most_similar(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """For tokens [N, L, D] at even places the largest cosine with one at an odd place, and which: [N, ceil(L / 2)].

    Of equally similar ones the first. A token of zeros has cosine 0 with all, one with a NaN is like no other.
    """
    unit = functional.normalize(tokens, dim=-1)
    even, odd = unit[:, ::2], unit[:, 1::2].transpose(1, 2)
    rows = max(1, AT_ONCE // (odd.shape[0] * odd.shape[2]))
    found = [(part @ odd).nan_to_num_(nan=NEVER).max(dim=-1) for part in even.split(rows, dim=1)]
    return torch.cat([values for values, _ in found], dim=1), torch.cat([places for _, places in found], dim=1)


def merge_step(sums: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge so many pairs.

    Args:
        sums: [N, L, D] of the patches in each token.
        sizes: [N, L] how many they are.
        count: of pairs, at most L / 2.

    Returns:
        Sums [N, L - count, D] and sizes [N, L - count] of what remains, in order.
    """
    with torch.no_grad():
        values, matches = most_similar(sums)  # a mean has the direction of its sum
        gone = values.argsort(dim=1, descending=True, stable=True)[:, :count]
        into = 2 * matches.gather(1, gone) + 1
        gone = 2 * gone
        kept = torch.ones_like(sizes, dtype=torch.bool).scatter_(1, gone, False).nonzero()[:, 1].view(len(sums), -1)

    def wide(places: Tensor) -> Tensor:
        return places.unsqueeze(-1).expand(-1, -1, sums.shape[-1])

    sums = sums.scatter_add(1, wide(into), sums.gather(1, wide(gone))).gather(1, wide(kept))
    sizes = sizes.scatter_add(1, into, sizes.gather(1, gone)).gather(1, kept)
    return sums, sizes


class TokenMerging(Pooling):
    """Merge similar tokens, r at a step, until so many remain or so many steps are done.

    Cost grows with the square of the tokens that are compared: with "clip", of all tokens.

    Args:
        target: stop at so many tokens, of each frame or of the clip; null: only steps count. What has fewer
            tokens stays as it is.
        r: pairs merged at a step, of each frame or of the clip; null: as many as can be, half of the tokens.
        steps: stop after so many; null: only target counts.
        within: "frame" merges tokens of one frame, "clip" those of all frames.

    Raises:
        PoolingShapeError: a number is out of range, there is no such within, or nothing says when to stop.
    """

    def __init__(
        self, target: int | None = None, r: int | None = None, steps: int | None = None, within: str = "frame"
    ) -> None:
        super().__init__()
        self.target = None if target is None else positive("target", target)
        self.r = None if r is None else whole("r", r)
        self.steps = None if steps is None else whole("steps", steps)
        self.within = one_of("within", within, WITHIN)
        if self.target is None and self.steps is None:
            raise PoolingShapeError("say pooling.target or pooling.steps: nothing says when merging stops")
        if self.r == 0 and self.steps is None:
            raise PoolingShapeError(f"pooling.r=0 never comes to pooling.target={self.target}")

    def schedule(self, count: int) -> list[int]:
        """How many of so many tokens go at each step."""
        gone: list[int] = []
        while self.steps is None or len(gone) < self.steps:
            left = count - sum(gone)
            most = [left // 2, left - (self.target or 1)] + ([] if self.r is None else [self.r])
            if min(most) <= 0:
                break
            gone.append(min(most))
        return gone

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        frames = grid.shape[1] if self.within == "frame" else 1
        tokens = grid.flatten(1, 3).unflatten(1, (frames, -1)).flatten(0, 1)  # [B * frames, L, D]
        schedule = self.schedule(tokens.shape[1])
        if not schedule:
            return grid.flatten(1, 3)
        sums = precise(tokens)
        sizes = sums.new_ones(sums.shape[:2])
        for count in schedule:
            sums, sizes = merge_step(sums, sizes, count)
        return (sums / sizes.unsqueeze(-1)).to(grid.dtype).unflatten(0, (-1, frames)).flatten(1, 2)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        groups, count = (frames, height * width) if self.within == "frame" else (1, frames * height * width)
        return groups * (count - sum(self.schedule(count)))

    @property
    def label(self) -> str:
        settings: list[tuple[str, Any]] = [("to", self.target), ("r", self.r), ("steps", self.steps)]
        said = [f"{name} {value}" for name, value in settings if value is not None]
        return " ".join(["token merging", *said, "" if self.within == "frame" else "clip"]).strip()

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        count = height * width if self.within == "frame" else frames * height * width
        return {"merged_at_each_step": self.schedule(count)}
