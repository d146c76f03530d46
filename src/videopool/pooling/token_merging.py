"""Fewer tokens: some of them, or similar ones averaged, pair after pair: ToMe's bipartite soft matching.

A step of ToMe (arXiv 2210.09461; `bipartite_soft_matching` and `merge_wavg` in tome/merge.py of facebookresearch/ToMe):
each token at an even place finds the most similar token at an odd place, by cosine; the r most similar pairs are
merged, each token weighted by its number of patches. Several may merge into one. At most half of the tokens disappear
in a step.

ToMe merges inside a tower and compares attention keys; here the features are compared, because a pooling sees nothing
else. ToMe leaves tokens in the order of their similarity; here they keep their places, a merged pair the odd one's.
"""

import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.base import Pooling, PoolingContext, PoolingShapeError, all_places, precise
from videopool.pooling.checks import one_of, positive, whole
from videopool.pooling.tiling import equidistant

AT_ONCE = 2**25  # similarities held at a time
NEVER = -2.0  # less than any cosine


def most_similar(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """For tokens [N, L, D] at even places the largest cosine with one at an odd place, and its index: [N, ceil(L / 2)].

    Ties go to the first. A token of zeros has cosine 0 with all; a token with a NaN matches no other.
    """
    unit = functional.normalize(tokens, dim=-1)
    even, odd = unit[:, ::2], unit[:, 1::2].transpose(1, 2)
    rows = max(1, AT_ONCE // (odd.shape[0] * odd.shape[2]))
    best = [(part @ odd).nan_to_num_(nan=NEVER).max(dim=-1) for part in even.split(rows, dim=1)]
    return torch.cat([values for values, _ in best], dim=1), torch.cat([places for _, places in best], dim=1)


def merge_step(sums: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge so many pairs, at most L / 2, of tokens: sums [N, L, D] and sizes [N, L] of the patches in each.

    Returns sums [N, L - count, D] and sizes [N, L - count] of the remaining tokens, in order.
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
    """Merge similar tokens, r per step, until target tokens remain or all steps are done.

    Cost grows with the square of the compared tokens: with "clip", of all tokens.

    Args:
        target: stop at so many tokens per frame or clip; null: only steps count. Fewer tokens stay as they are.
        r: pairs merged per step in each frame or clip; null: as many as possible, half of the tokens.
        steps: stop after so many; null: only target counts.
        within: "frame" merges tokens of one frame, "clip" those of all frames.

    Raises PoolingShapeError if nothing stops it.
    """

    def __init__(
        self, target: int | None = None, r: int | None = None, steps: int | None = None, within: str = "frame"
    ) -> None:
        super().__init__()
        self.target = None if target is None else positive("target", target)
        self.r = None if r is None else whole("r", r)
        self.steps = None if steps is None else whole("steps", steps)
        self.within = one_of("within", within, ("frame", "clip"))
        if target is None and steps is None:
            raise PoolingShapeError("say pooling.target or pooling.steps: nothing says when merging stops")
        if r == 0 and steps is None:
            raise PoolingShapeError(f"pooling.r=0 never comes to pooling.target={target}")
        settings = (("to", target), ("r", r), ("steps", steps))
        words = [f"{name} {value}" for name, value in settings if value is not None]
        self._label = " ".join(["token merging", *words, *(["clip"] if within == "clip" else [])])

    def schedule(self, count: int) -> list[int]:
        """How many of so many tokens disappear in each step."""
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

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        count = height * width if self.within == "frame" else frames * height * width
        return {"merged_at_each_step": self.schedule(count)}


class Subsample(Pooling):
    """Keep k of the N tokens of a clip, in order. A clip with fewer keeps all.

    Args:
        tokens: k.
        mode: "uniform" spreads them evenly over the clip, token round(i * (N - 1) / (k - 1)) for i = 0..k-1, as
            `sample_tokens` in llava/model/llava_arch.py of tingyu215/TS-LLaVA (arXiv 2411.11066); "random" draws
            without replacement, equally for all clips of a size; "lowest_norm" and "highest_norm" keep by L2 norm,
            of equal norms the earlier tokens, with NaN as the highest norm.
        seed: of "random".
    """

    def __init__(self, tokens: int, mode: str = "uniform", seed: int = 0) -> None:
        super().__init__()
        self.tokens = positive("tokens", tokens)
        self.mode = one_of("mode", mode, ("uniform", "random", "lowest_norm", "highest_norm"))
        self.seed = whole("seed", seed)
        self._label = f"subsample {tokens} {mode}{f' seed {seed}' if mode == 'random' else ''}"

    def places(self, count: int) -> list[int] | None:
        """The kept of so many tokens; None if their norms decide."""
        if self.tokens >= count:
            return list(range(count))
        if self.mode == "uniform":
            return equidistant(self.tokens, count)
        if self.mode == "random":
            generator = torch.Generator().manual_seed(self.seed)
            return sorted(torch.randperm(count, generator=generator)[: self.tokens].tolist())
        return None

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return torch.take_along_dim(grid.flatten(1, 3), self.token_places(grid).unsqueeze(-1), dim=1)

    def token_places(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        tokens = grid.flatten(1, 3)
        places = self.places(tokens.shape[1])
        if places is not None:
            return all_places(grid)[:, places]
        norms = torch.linalg.vector_norm(precise(tokens.detach()), dim=-1)  # [B, N]
        order = norms.argsort(dim=1, descending=self.mode == "highest_norm", stable=True)
        return order[:, : self.tokens].sort(dim=1).values

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return min(self.tokens, frames * height * width)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        places = self.places(frames * height * width)
        return {} if places is None else {"kept": places}
