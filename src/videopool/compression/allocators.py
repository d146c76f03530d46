"""Allocators over frames: how many tokens each frame of a clip, or the clip as a whole, may keep."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from videopool.compression.clip import Clip, Part, apportion, best, frame_part, spread
from videopool.compression.selectors import Selector, commonness, frame_directions, outlier_share
from videopool.pooling.checks import flag, number, whole


class Allocator:
    """Base: a number of tokens for each frame. A subclass defines `counts`, or `parts` for other parts than frames.

    Args:
        contextual: share of a frame's tokens that absorb the others, the rest is kept as it is; 0: the others are lost.

    Attributes:
        needs: names of PoolingContext fields.
        together: whether centres of a frame absorb tokens of its whole segment.
        open: whether more than the asked tokens may stay.
        free: whether with reference=true the clip alone may decide.
        label: in names of unnamed compressions; "": the class name.
    """

    needs: frozenset[str] = frozenset()
    together = False
    open = False
    free = False
    label = ""

    def __init__(self, contextual: float = 0.0) -> None:
        self.contextual = number("allocator.contextual", contextual, 0, 1)

    def least(self, frames: int, places: int) -> int:
        """Fewest tokens that a clip of this size can be left."""
        return 1

    def of_share(self, frames: int, places: int, share: float) -> int:
        """N for a share of a clip of this size."""
        return max(1, int(share * (frames * places)))

    def counts(self, clip: Clip, selector: Selector) -> Sequence[int]:
        """Tokens of each frame; they sum up to `clip.count`, and none exceeds `clip.places`."""
        raise NotImplementedError

    def parts(self, clip: Clip, selector: Selector) -> list[Part]:
        counts = self.counts(clip, selector)
        return [frame_part(clip, t, n, round(self.contextual * n)) for t, n in enumerate(counts)]

    def rest(self, clip: Clip, parts: list[Part], rests: list[Part]) -> list[Part]:
        """What the kept tokens leave of each part, before centres are chosen."""
        return rests


class Uniform(Allocator):
    """The same number for each frame; what is left goes evenly to some.

    Args:
        first: the first frame keeps all tokens, as in DTD; the others share the rest.
    """

    def __init__(self, contextual: float = 0.0, first: bool = False) -> None:
        super().__init__(contextual)
        self.first = flag("allocator.first", first)
        self.label = "Uniform first" if first else ""

    def counts(self, clip: Clip, selector: Selector) -> Sequence[int]:
        if self.first and clip.frames > 1:
            whole_frame = min(clip.count, clip.places)
            return [whole_frame, *spread(clip.count - whole_frame, clip.frames - 1)]
        return spread(clip.count, clip.frames)


class Outliers(Uniform):
    """The same number for each frame; with reference=true that of LLaVA-PruMerge (arXiv 2403.15388).

    Its code keeps the share of outliers among the clip's saliencies, or a given share, of each frame, as many as its
    selector makes of that, and one token for all others.
    """

    free = True

    def __init__(self, contextual: float = 1.0) -> None:
        super().__init__(contextual)
        self.label = "Outliers"

    def counts(self, clip: Clip, selector: Selector) -> Sequence[int]:
        if not clip.reference:
            return super().counts(clip, selector)
        number = int((clip.once(outlier_share) if clip.open else clip.share) * clip.places)
        return [len(selector.choose(clip, frame_part(clip, t), number)) + 1 for t in range(clip.frames)]


class WholeClip(Allocator):
    """All tokens of the clip compete, as in EVS.

    Args:
        above: tokens with a larger score stay too, however many they are; null: only the number counts.
    """

    def __init__(self, contextual: float = 0.0, above: float | None = None) -> None:
        super().__init__(contextual)
        self.above = None if above is None else number("allocator.above", above, -math.inf)
        self.open = above is not None

    def parts(self, clip: Clip, selector: Selector) -> list[Part]:
        count = clip.count
        if self.above is not None:
            above = int((~(clip.once(selector.scores) < self.above)).sum())
            clip.open, count = above >= count, max(count, above)
        x = clip.tokens.flatten(0, 1)
        places = torch.arange(len(x), device=x.device)
        return [Part(x, places, count, round(self.contextual * count), (0, clip.frames))]


class FrameWeights(Allocator):
    """More for frames unlike the rest of the clip, then the least wanted or next wanted tokens of all frames: VidCom2.

    arXiv 2505.14454; the exact number as in vLLM: what rounding gave too much or too little is taken from, or given to
    the tokens of the worst or best scores in the clip.
    """

    def of_share(self, frames: int, places: int, share: float) -> int:
        return max(frames, super().of_share(frames, places, share))

    def counts(self, clip: Clip, selector: Selector) -> Sequence[int]:
        unusual = -clip.once(commonness)[0].mean(1)
        weights = ((unusual - unusual.max()) / 0.01).softmax(0).nan_to_num()
        scales = (clip.share * (1 + weights - weights.mean())).clamp(max=1.0)
        counts = (scales * clip.places).round().long().clamp(1, clip.places)
        if clip.reference or not (over := int(counts.sum()) - clip.count):
            return counts.tolist()
        scores = clip.once(selector.scores)
        scores = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        kept = (rank < counts[:, None]).flatten()
        wanted = scores.flatten()
        side = kept if over > 0 else ~kept
        moved = side.nonzero()[:, 0][best(wanted[side] * (-1 if over > 0 else 1), abs(over))]
        kept[moved] = over < 0
        return kept.view_as(scores).sum(1).tolist()


def handed_out(weights: Sequence[float], total: int, least: int, most: int, reference: bool = False) -> list[int]:
    """V-CAST's budget: the least for each frame, the others by weight, at most so many.

    Its code gives what rounding down leaves over to the frame of the largest remainder until that is full, then to the
    next; here each frame gets one at most.
    """
    frames = len(weights)
    base = least if total >= frames * least else 0
    if not reference:
        return [base + n for n in apportion(weights, total - base * frames, [most - base] * frames)]
    shares = np.maximum(np.asarray(weights, dtype=np.float32), 0)
    shares = (shares if shares.any() else shares + 1) / (shares.sum() or frames) * np.float32(total - base * frames)
    counts = base + np.minimum(np.floor(shares), most - base).astype(int)
    for frame in np.argsort(np.floor(shares) - shares, kind="stable"):
        counts[frame] += min(total - counts.sum(), most - counts[frame])
    return counts.tolist()


class Curvature(Allocator):
    """More for frames where the path of the frames' means bends: V-CAST (arXiv 2603.27650).

    Weights are the softmax of (1 - cosine of the steps to and from a frame) / temperature; 1 at both ends.

    Args:
        least: tokens that each frame keeps, if there are so many.
    """

    def __init__(self, contextual: float = 0.0, temperature: float = 0.7, least: int = 1) -> None:
        super().__init__(contextual)
        self.temperature = number("allocator.temperature", temperature, 0, above=True)
        self.each = whole("allocator.least", least)

    def of_share(self, frames: int, places: int, share: float) -> int:
        return max(1, round(share * (frames * places)))

    def counts(self, clip: Clip, selector: Selector) -> Sequence[int]:
        if clip.frames == 1:
            return [clip.places if clip.reference else clip.count]
        steps = clip.once(frame_directions).diff(dim=0)
        bend = torch.ones(clip.frames, dtype=steps.dtype, device=steps.device)
        bend[1:-1] = 1 - torch.nn.functional.cosine_similarity(steps[:-1], steps[1:], dim=-1, eps=1e-6)
        weights = (bend.nan_to_num(1.0) / self.temperature).softmax(0).tolist()
        return handed_out(weights, clip.count, min(self.each, clip.places), clip.places, clip.reference)


class Groups(Allocator):
    """Of each four frames the first is kept whole, the others share what is left: DyCoke (arXiv 2411.15024).

    The published code drops the last frame of an odd number, keeps the third of the last four whole, and needs five.
    """

    def least(self, frames: int, places: int) -> int:
        return -(-frames // 4) * places

    def counts(self, clip: Clip, selector: Selector) -> Sequence[int]:
        frames, whole_frames = clip.frames, list(range(0, clip.frames, 4))
        counts = [clip.places if t in whole_frames else 0 for t in range(frames)]
        if clip.reference:
            keep = int(clip.share * clip.places)
            counts = [n or keep for n in counts]
            last = frames - frames % 2 - 1  # the last frame that is read
            for t in range(frames):
                if t > last:
                    counts[t] = 0
                elif t % 4 == 2 and t - 2 >= frames - 4:
                    counts[t] = clip.places
            return counts
        others = [t for t in range(frames) if t not in whole_frames]
        for t, n in zip(others, spread(clip.count - sum(counts), len(others)) if others else [], strict=True):
            counts[t] = n
        return counts
