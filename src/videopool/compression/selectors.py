"""Selectors: which candidates are kept, or become the centres that absorb others."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from videopool.compression.clip import Clip, Part, best, cosines, density_peaks, squares, unit
from videopool.pooling.checks import flag, number, one_of, positive, whole
from videopool.pooling.tiling import equidistant

TOWER = ("tower", "cls", "received", "head")
KINDS = (*TOWER, "norm", "inverse_norm", "random")


class Selector:
    """Base: the candidates with the largest scores. A subclass defines `scores`, or `choose` where choices interact.

    Attributes:
        needs: names of PoolingContext fields.
        saliency: which saliency it takes from the context; "tower": the one that the tower has.
        label: in names of unnamed compressions; "": the class name.
    """

    needs: frozenset[str] = frozenset()
    saliency: str | None = None
    label = ""

    def scores(self, clip: Clip) -> Tensor:
        """[T, L], larger is kept; infinite: kept before all others."""
        raise NotImplementedError

    def choose(self, clip: Clip, part: Part, count: int) -> Tensor:
        """Indices [count] of a part's candidates, best first."""
        return best(clip.once(self.scores).flatten()[part.places], count, clip.reference)


class Saliency(Selector):
    """The most salient tokens.

    Args:
        kind: the tower's attention: "cls" of its CLS token, "received" from all positions, "head" of its pooling head,
            "tower" the first of these that it has; or "norm" or "inverse_norm" of the token, or "random".
        seed: of "random", which draws equally for all clips of a size.
    """

    def __init__(self, kind: str = "tower", seed: int = 0) -> None:
        self.kind = one_of("selector.kind", kind, KINDS)
        self.label = f"Saliency {kind}"
        self.seed = whole("selector.seed", seed)
        if kind in TOWER:
            self.needs, self.saliency = frozenset({"saliency"}), kind

    def scores(self, clip: Clip) -> Tensor:
        if self.kind in TOWER:
            assert clip.saliency is not None
            return clip.saliency
        if self.kind == "random":
            generator = torch.Generator().manual_seed(self.seed)
            return torch.rand(clip.frames, clip.places, generator=generator).to(clip.tokens.device)
        norms = clip.once(squares)
        return norms if self.kind == "norm" else -norms


def outlier_share(clip: Clip) -> float:
    """Share of the clip's saliencies above Q3 + 1.5 (Q3 - Q1), with linear quartiles: LLaVA-PruMerge.

    By more than rounding, which makes no outlier of equal ones.
    """
    assert clip.saliency is not None
    values = clip.saliency.flatten().float()
    low, high = np.percentile(values.cpu().numpy(), [25, 75])
    return float((values > (1 + 1e-6) * (high + 1.5 * (high - low))).sum()) / len(values)


class SaliencyEven(Saliency):
    """The most salient tokens of a part, then others at equal distances: PruMerge+ (arXiv 2403.15388).

    With reference=true the places of the published code: every third part of 1 / share from the first one, those that
    saliency chose left out; with a given share every 1 / share, from half of it on, so that places may repeat.

    Args:
        salient: share of the tokens that saliency chooses.
    """

    def __init__(self, kind: str = "tower", seed: int = 0, salient: float = 0.25) -> None:
        super().__init__(kind, seed)
        self.label = f"SaliencyEven {kind}"
        self.salient = number("selector.salient", salient, 0, 1)

    def choose(self, clip: Clip, part: Part, count: int) -> Tensor:
        if not clip.reference:
            first = super().choose(clip, part, round(self.salient * count))
            others = torch.ones(len(part), dtype=torch.bool, device=first.device).index_fill(0, first, False)
            places = others.nonzero()[:, 0]
            left = count - len(first)
            even = places[[i * len(places) // left for i in range(left)]]
            return torch.cat([first, even])
        share = clip.once(outlier_share) if clip.open else clip.share
        step = int(1 / share) if share else len(part)
        first = super().choose(clip, part, int(share * len(part)))
        starts = (0, max(1, step // 3)) if clip.open else (step // 2, step)
        even = torch.arange(starts[0], len(part) - 1, starts[1], device=first.device)
        return torch.cat([first, even[~torch.isin(even, first)] if clip.open else even])


class Changed(Selector):
    """The tokens least like the token at their place in an earlier frame, by cosine; frames without one come first.

    Args:
        since: "previous" frame, as EVS and DTD, or DyCoke's "group" of four: the second is compared with the first,
            the third with the first, the fourth with the third.
        merging: with reference=true, as FrameFusion: of equal scores the first is lost, and tokens of zeros, otherwise
            of cosine 0, are unlike all where a limit decides, and else most alike.
    """

    def __init__(self, since: str = "previous", merging: bool = False) -> None:
        self.merging = flag("selector.merging", merging)
        self.back = {"previous": (1,), "group": (0, 1, 2, 1)}[one_of("selector.since", since, ("previous", "group"))]

    def scores(self, clip: Clip) -> Tensor:
        x, frames = clip.tokens.detach(), clip.frames
        steps = [self.back[t % len(self.back)] if t else 0 for t in range(frames)]
        if clip.reference and len(self.back) > 1 and (last := (frames - 1) // 4 * 4) + 2 < frames:
            steps[last + 2] = 0  # which DyCoke's code keeps whole
        later = range(1, frames)
        changes = 1 - cosines(clip, later, [t - steps[t] for t in later])
        if self.merging and clip.reference:
            lone = ~x.any(-1)
            changes = changes.masked_fill(lone[1:] | lone[:-1], torch.nan)
        first = changes.new_full((1, clip.places), math.inf)
        whole_frames = torch.tensor([step == 0 for step in steps[1:]], dtype=torch.bool, device=x.device)
        return torch.cat([first, changes.masked_fill(whole_frames[:, None], math.inf)])

    def choose(self, clip: Clip, part: Part, count: int) -> Tensor:
        if not (self.merging and clip.reference):
            return super().choose(clip, part, count)
        scores = -clip.once(self.scores).flatten()[part.places]
        lost = best(scores.nan_to_num(-math.inf if clip.open else 9.0, neginf=-math.inf), len(part))
        return lost.flip(0)[:count]


def gaussians(x: Tensor, scale: Tensor, sizes: Tensor, centres: Tensor) -> Tensor:
    """Sum over k = -3..1 of exp(-|u - c|^2 / (2 * 2^k)) [T, L], of u = x * scale, |u|^2 = sizes, and centres [T, D]."""
    products = torch.stack([frame @ centre for frame, centre in zip(x, centres, strict=True)]) * scale
    apart = (sizes + centres.square().sum(1, keepdim=True) - 2 * products).clamp(min=0)
    return torch.stack([(apart * (-0.5 / 2**k)).exp() for k in range(-3, 2)]).sum(0)


def commonness(clip: Clip) -> tuple[Tensor, Tensor]:
    """Likeness [T, L] of each token to the clip's centre, and to its frame's: VidCom2.

    Only the half of the features with the smallest variance over the clip counts; tokens are of length 1.
    """
    x = clip.tokens.detach()
    mean = frame_means(clip).mean(0)
    buffer = torch.empty_like(x[0])
    spread = torch.stack([torch.sub(frame, mean, out=buffer).square_().sum(0) for frame in x]).sum(0)
    quiet = torch.zeros_like(mean)
    quiet[spread.argsort(stable=True)[: max(1, len(mean) // 2)]] = 1.0
    norms = torch.stack([torch.mul(frame, frame, out=buffer) @ quiet for frame in x]).sqrt()
    scale = 1 / norms.clamp(min=1e-12)
    sizes = (norms * scale).square()
    own = torch.stack([weights @ frame for weights, frame in zip(scale, x, strict=True)]) * quiet / clip.places
    return gaussians(x, scale, sizes, own.mean(0).expand_as(own)), gaussians(x, scale, sizes, own)


class Unusual(Selector):
    """The tokens least like the centres of their clip and their frame: VidCom2 (arXiv 2505.14454)."""

    def scores(self, clip: Clip) -> Tensor:
        video, frame = clip.once(commonness)
        return -(video + frame)


def frame_means(clip: Clip) -> Tensor:
    """[T, D]."""
    return torch.stack([frame.mean(0) for frame in clip.tokens.detach()])


def frame_directions(clip: Clip) -> Tensor:
    """[T, D] the mean of each frame, of norm 1."""
    means = clip.once(frame_means)
    return means / torch.linalg.vector_norm(means, dim=-1, keepdim=True).clamp(min=1e-6)


class FarFromMean(Selector):
    """The tokens farthest from their frame's mean in direction and largest in norm: V-CAST (arXiv 2603.27650).

    The score is 1 - cosine, plus the norm scaled to 0..1 in its frame.
    """

    def scores(self, clip: Clip) -> Tensor:
        x = clip.tokens.detach()
        norms = clip.once(squares).sqrt()
        least, most = (norms.nan_to_num(end).aminmax(dim=1, keepdim=True)[i] for i, end in enumerate((math.inf, 0.0)))
        products = [frame @ own for frame, own in zip(x, clip.once(frame_directions), strict=True)]
        likeness = torch.stack(products) / norms.clamp(min=1e-6)
        return 1 - likeness + (norms - least) / (most - least + 1e-6)


class Even(Selector):
    """Candidates at equal distances: i * n / count, rounded down; VisionZip's own code rounds n / count down.

    Args:
        ends: from the first candidate to the last, as `Subsample`: then the columns of a grid change from row to row.
    """

    def __init__(self, ends: bool = False) -> None:
        self.ends = flag("selector.ends", ends)

    def choose(self, clip: Clip, part: Part, count: int) -> Tensor:
        n = len(part)
        step = max(1, n // count)
        places = [i * step for i in range(count)] if clip.reference else [i * n // count for i in range(count)]
        places = equidistant(count, n) if self.ends else places
        return torch.tensor(places, dtype=torch.long, device=part.places.device)


class DensityPeaks(Selector):
    """Centres of density-peak clustering: FastVID, HoliTom, FlashVID, PruneVid.

    Args:
        near: neighbours that make the density. With 1 all densities are equal, with 2 those of mutual neighbours.
        cap: with reference=true: no more neighbours than centres, as HoliTom and FlashVID.
    """

    def __init__(self, near: int = 7, cap: bool = False) -> None:
        self.near, self.cap = positive("selector.near", near), cap

    def choose(self, clip: Clip, part: Part, count: int) -> Tensor:
        near = min(self.near, count) if self.cap and clip.reference else self.near
        return best(density_peaks(part.values, near), count)


def farthest(apart: np.ndarray, count: int, again: bool = False, raw: bool = False) -> np.ndarray:
    """Indices [count], one after another that whose nearest chosen one is the farthest, by distances [n, n].

    The first has the farthest neighbour. With `again` one may be chosen twice; `raw` keeps NaN, which is the largest.
    """
    nearest = np.sort(apart, axis=0)[1]
    if not raw:
        apart, nearest = (np.nan_to_num(values, nan=-1e30, neginf=-np.inf) for values in (apart, nearest))
    chosen = np.zeros(count, dtype=np.int64)
    for step in range(count):
        if not again:
            nearest[chosen[:step]] = -1.0 if raw else -np.inf
        chosen[step] = nearest.argmax()
        nearest = np.minimum(nearest if step else np.inf, apart[chosen[step]])
    return chosen


class MaxMin(Selector):
    """One after another the token whose nearest chosen token is the farthest: FlashVID's selection.

    Distances are 1 - cosine, to a candidate times its weight. The first token is the one with the farthest neighbour.

    Args:
        weights: factors of the weight, of "saliency" and "context"; the latter is the mean product with the means of
            the frames of its segment.
    """

    def __init__(self, weights: Sequence[str] = ("saliency",), kind: str = "tower") -> None:
        self.weights = [one_of("selector.weights", name, ("saliency", "context")) for name in weights]
        self.label = " ".join(["MaxMin", *self.weights])
        if "saliency" in self.weights:
            self.salient = Saliency(kind)
            self.needs, self.saliency = self.salient.needs, self.salient.saliency

    def choose(self, clip: Clip, part: Part, count: int) -> Tensor:
        x = part.values.detach()
        units = unit(x, raw=clip.reference)
        weight = x.new_ones(len(part))
        if "saliency" in self.weights:
            weight = weight * 1e6 * clip.once(self.salient.scores).flatten()[part.places].to(x)
        if "context" in self.weights:
            weight = weight * (x @ clip.tokens[slice(*part.span)].detach().mean((0, 1)))
        if len(part) == 1:
            return torch.zeros(count, dtype=torch.long, device=x.device)
        again = clip.reference and "context" in self.weights  # such weights may choose a token twice
        chosen = farthest(((1 - units @ units.T) * weight).cpu().numpy(), count, again, clip.reference)
        return torch.from_numpy(chosen).to(x.device)
