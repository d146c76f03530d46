"""One clip as a compression sees it, and the arithmetic that allocators, selectors and mergers share.

Letters: T frames of L places (L = H * W), D features. A flat place is t * L + row * W + column.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from videopool.pooling.tiling import equidistant


@dataclass
class Clip:
    """One clip.

    Attributes:
        tokens: [T, L, D] in float32 at least, so that half precision changes no choice.
        height, width: H and W.
        count: N, the tokens to leave.
        share: of the T * L tokens to leave, as the method's paper counts it.
        reference: whether to do as the published code does, where that is wrong.
        saliency: [T, L], keys: [T, L, K], vectors: [T, F], cls: [T, D]: of the context, as far as they are needed.
        open: whether a limit of the scores decided how many stay.
    """

    tokens: Tensor
    height: int
    width: int
    count: int
    share: float
    reference: bool = False
    saliency: Tensor | None = None
    keys: Tensor | None = None
    vectors: Tensor | None = None
    cls: Tensor | None = None
    open: bool = False
    _made: dict[Any, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        return self.tokens.shape[0]

    @property
    def places(self) -> int:
        """L, the places of one frame."""
        return self.tokens.shape[1]

    def once(self, make: Callable[["Clip"], Any]) -> Any:
        """What a function makes of the clip, made once."""
        if make not in self._made:
            with torch.no_grad():
                self._made[make] = make(self)
        return self._made[make]


@dataclass
class Part:
    """Candidates that share one number of tokens: a frame, a whole clip, the still places of some frames.

    Attributes:
        rows: [m, D] that hold the values of the candidates, at `index` [n]; null: all.
        places: [n] flat places, of the first token for a mean.
        count: how many tokens it leaves.
        centres: how many of them absorb others; the rest of them are kept as they are.
        span: first frame and end of the segment that it belongs to.
        still: whether it holds means over the frames of its span.
    """

    rows: Tensor
    places: Tensor
    count: int = 0
    centres: int = 0
    span: tuple[int, int] = (0, 0)
    still: bool = False
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def values(self) -> Tensor:
        """[n, D]."""
        with torch.enable_grad():  # who asks first may be a choice, which has no gradient
            return self.rows if self.index is None else self.rows[self.index]

    def of(self, index: Tensor) -> "Part":
        """Some candidates, by index or mask."""
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        return replace(self, places=self.places[index], index=index if self.index is None else self.index[index])

    def without(self, index: Tensor) -> "Part":
        """The candidates but some, by index."""
        left = torch.ones(len(self), dtype=torch.bool, device=self.places.device)
        left[index] = False
        return self.of(left)


def frame_part(clip: Clip, frame: int, count: int = 0, centres: int = 0, span: tuple[int, int] | None = None) -> Part:
    """All tokens of a frame."""
    first = frame * clip.places
    places = torch.arange(first, first + clip.places, device=clip.tokens.device)
    return Part(clip.tokens[frame], places, count, centres, span or (frame, frame + 1))


def joined(parts: Sequence[Part]) -> Part:
    """The candidates of several parts in one."""
    if len(parts) == 1:
        return parts[0]
    values, places = ([getattr(part, name) for part in parts] for name in ("values", "places"))
    return replace(parts[0], rows=torch.cat(values), places=torch.cat(places), index=None)


def unit(values: Tensor, raw: bool = False) -> Tensor:
    """Values [..., D] of norm 1; zeros stay zeros, but with `raw` become NaN."""
    if raw:
        return values / torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return functional.normalize(values, dim=-1, eps=1e-12)


def likest(values: Tensor, centres: Tensor, raw: bool = False) -> Tensor:
    """[n] the centre [m, D] of largest cosine with each of the values [n, D]; NaN is the least, with `raw` the most."""
    a, b = unit(values, raw), unit(centres, raw)
    likeness = a @ b.T
    if not raw and not bool(a.isfinite().all() & b.isfinite().all()):
        likeness = likeness.nan_to_num(nan=-2.0)
    return likeness.argmax(1)


def dots(a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor) -> Tensor:
    """Inner products [T, L] of [T, L, D] and [T, L, D], frame by frame, so that all stays in the cache."""
    buffer = torch.empty_like(a[0])
    return torch.stack([torch.mul(x, y, out=buffer).sum(-1) for x, y in zip(a, b, strict=True)])


def squares(clip: Clip) -> Tensor:
    """[T, L] the square of each token's norm."""
    return dots(clip.tokens.detach(), clip.tokens.detach())


def cosines(clip: Clip, frames: Sequence[int], earlier: Sequence[int]) -> Tensor:
    """Cosines [n, L] of the tokens of frames with those at their places in other frames; 0 with a token of zeros."""
    x, square = clip.tokens.detach(), clip.once(squares).clamp(min=1e-16)
    norms = (square[list(frames)] * square[list(earlier)]).sqrt()
    return dots([x[t] for t in frames], [x[s] for s in earlier]) / norms if frames else norms


def best(scores: Tensor, count: int, reference: bool = False) -> Tensor:
    """Indices of the largest scores [n], best first; of equal ones the first.

    NaN comes last, with `reference` first. Of more infinite scores than asked for an even choice is taken.
    """
    if not reference:
        scores = scores.masked_fill(scores.isnan(), -math.inf)
        sure = (scores == math.inf).nonzero()[:, 0]
        if len(sure) > count:
            return sure[equidistant(count, len(sure))]
    return scores.argsort(descending=True, stable=True)[:count]


def spread(total: int, parts: int) -> list[int]:
    """A total in so many parts that differ by at most 1, the larger ones evenly between the others."""
    return [(i + 1) * total // parts - i * total // parts for i in range(parts)]


def apportion(weights: Sequence[float] | np.ndarray, total: int, most: Sequence[int] | np.ndarray) -> list[int]:
    """A total in whole parts in proportion to weights, none above its limit: the largest remainders get one more.

    What a limit takes away goes to the others. Equal remainders: the first. Weights of 0 alone count as equal.
    """
    limits, counts = np.asarray(most, dtype=np.int64), np.zeros(len(most), dtype=np.int64)
    shares, free = np.nan_to_num(np.asarray(weights, dtype=np.float64)), limits > 0
    while free.any():
        own = np.where(free, shares if shares[free].sum() > 0 else 1.0, 0.0)
        ideal = own / own.sum() * (total - counts.sum())
        full = free & (ideal > limits)
        if not full.any():
            whole = np.floor(ideal + 1e-9).astype(np.int64)
            left = total - int(counts.sum() + whole.sum())
            order = np.argsort(np.where(free & (counts + whole < limits), whole - ideal, np.inf), kind="stable")
            whole[order[:left]] += 1
            counts += whole
            break
        counts[full], free = limits[full], free & ~full
    return counts.tolist()


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[n, m] of values [n, D] and [m, D], over D, in float64.

    Rounded, so that what is equal does not differ by the order of additions.
    """
    a, b = a.detach().double(), b.detach().double()
    square = torch.linalg.vecdot(a, a)[:, None] + torch.linalg.vecdot(b, b) - 2 * a @ b.T
    if not square.numel():
        return square
    fine = 2.0**36 / square.abs().max().clamp(min=1e-30)
    return (square * fine).round().clamp(min=0) / fine / a.shape[-1]


def density_peaks(values: Tensor, near: int) -> Tensor:
    """Scores [n] of density-peak clustering with nearest neighbours: dense points far from denser ones.

    Rodriguez and Laio (2014) with the density of DPC-KNN (Du et al., 2016): rho = exp(-mean of the `near` smallest
    squared distances, the point itself included), delta = the distance to the nearest denser point, and for the densest
    the largest distance; the score is rho * delta.
    """
    square = squared_distances(values, values)
    rho = square.topk(min(near, len(values)), largest=False).values.mean(-1).neg().exp()
    apart = square.sqrt()
    largest = apart.max()
    delta = torch.where(rho[None, :] > rho[:, None], apart, largest).amin(1)
    return rho * delta


def segments(vectors: Tensor, least: int, below: float, raw: bool, mask: bool = False) -> list[tuple[int, int]]:
    """Runs of alike frames, as (first, end), from frame vectors [T, F].

    A segment ends where the cosine with the next frame is below a limit, and at the smallest cosines as far as that
    takes to come to the least number of segments; with `mask` these are looked for among the others alone.
    """
    frames = len(vectors)
    units = unit(vectors, raw)
    alike = torch.linalg.vecdot(units[1:], units[:-1])
    cut = alike < below
    if mask and int(cut.sum()) + 1 < least:
        alike, least = alike.masked_fill(cut, 1.0), least - int(cut.sum())
    elif mask:
        least = 1
    cut[alike.argsort(stable=True)[: min(least, frames) - 1]] = True
    ends = [*((cut.nonzero()[:, 0] + 1).tolist()), frames]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def raised(tau: float, enough: Callable[[float], bool]) -> float:
    """A threshold of cosines, raised as little as is enough; above 1, which no cosine is, all tokens are left."""
    if enough(tau):
        return tau
    low, high = tau, 2.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
