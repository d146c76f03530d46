"""Allocators over segments of alike frames: few frames speak for all, or tokens are merged along trees in time."""

import math

import torch

from videopool.compression.allocators import Allocator
from videopool.compression.clip import Clip, Part, apportion, frame_part, segments, spread, unit
from videopool.compression.selectors import Selector, frame_means
from videopool.pooling.checks import flag, number, one_of, positive


class Anchors(Allocator):
    """The same for each frame, but centres only in some frames of each segment, which absorb all of it: FastVID.

    arXiv 2503.11187, the form for LLaVA-OneVision; with `ignore` that for Qwen2.5-VL. A segment ends where the cosine
    of frame vectors falls below tau, and at the smallest cosines, to come to the least number. Anchors are its frames
    at distance 0, every, 2 * every, ... from its end. The published code loses what does not divide by them.

    Args:
        contextual: share of the tokens that are centres.
        least: segments of a clip at least.
        tau: cosine.
        every: frames from anchor to anchor.
        ignore: of frames more alike than this cosine only the last of a run keeps tokens; null: all do.
        by: "frame_vectors" of the tower's pooling head, or the "mean" of the frame's tokens.
    """

    together = True

    def __init__(
        self, contextual: float = 0.4, least: int = 8, tau: float = 0.9, every: int = 4, ignore: float | None = None,
        by: str = "frame_vectors",
    ) -> None:  # fmt: skip
        super().__init__(contextual)
        self.segments, self.every = positive("allocator.least", least), positive("allocator.every", every)
        self.tau = number("allocator.tau", tau, -2, 2)
        self.ignore = None if ignore is None else number("allocator.ignore", ignore, -2, 2)
        self.by = one_of("allocator.by", by, ("frame_vectors", "mean"))
        self.needs = frozenset({"frame_vectors"}) if by == "frame_vectors" else frozenset()

    def parts(self, clip: Clip, selector: Selector) -> list[Part]:
        vectors = clip.once(frame_means) if self.by == "mean" else clip.vectors
        assert vectors is not None
        each = [int(clip.places * clip.share)] * clip.frames if clip.reference else spread(clip.count, clip.frames)
        parts = []
        for start, end in segments(vectors, self.segments, self.tau, clip.reference):
            valid = list(range(end - start))
            if self.ignore is not None and len(valid) > 1:
                runs = segments(vectors[start:end], 1, self.ignore, clip.reference)
                valid = [stop - 1 for _, stop in runs]
            plan = self.published if clip.reference else self.shared
            parts += [
                frame_part(clip, start + t, kept + centres, centres, (start, end))
                for t, (kept, centres) in enumerate(plan(clip, each[start:end], valid))
            ]
        return parts

    def shared(self, clip: Clip, each: list[int], valid: list[int]) -> list[tuple[int, int]]:
        """Kept tokens and centres of each frame of a segment; what valid frames cannot hold goes to the others."""
        most, total = clip.places, sum(each)
        anchors = valid[:: -self.every]
        wanted = min(sum(int(n * self.contextual) for n in each), len(anchors) * most)
        own = dict(zip(anchors, apportion([1] * len(anchors), wanted, [most] * len(anchors)), strict=True))
        room = [most - own.get(t, 0) for t in range(len(each))]
        free = [n if t in valid else 0 for t, n in enumerate(room)]
        kept = apportion([1] * len(each), min(total - wanted, sum(free)), free)
        more = apportion([1] * len(each), total - wanted - sum(kept), [n - k for n, k in zip(room, kept, strict=True)])
        return [(k + m, most - n) for k, m, n in zip(kept, more, room, strict=True)]

    def published(self, clip: Clip, each: list[int], valid: list[int]) -> list[tuple[int, int]]:
        """As `shared`, but what does not divide, or what a frame cannot hold, is lost."""
        frames, count = len(each), each[0]
        if self.ignore is None:
            anchors, centres = range(frames - 1, -1, -self.every), int(count * self.contextual)
            return [(count - centres, centres * frames // len(anchors) if t in anchors else 0) for t in range(frames)]
        wanted = max(int(count * frames * self.contextual), 1)
        places = range(0, len(valid), self.every)
        share, more = divmod(wanted, len(places))
        own = {place: min(share + (i < more), clip.places // 2) for i, place in enumerate(places)}
        numbers = [own.get(i, 0) for i in range(len(valid))][::-1]  # so that anchors count from the end
        share, more = divmod(count * frames - wanted, len(valid))
        found = [(0, 0)] * frames
        for i, t in enumerate(valid):
            found[t] = (min(share + (i < more), clip.places - numbers[i]), numbers[i])
        return found


class Trees(Allocator):
    """Kept tokens in each frame; the others merged along the likest of the frame before, then by frame: FlashVID.

    arXiv 2602.08024. Segments are cut where the cosine of frame means falls below tau, and where it is smallest, to
    come to the least number. In a segment a token points to the likest one in the frame before, and joins it where
    their cosine exceeds `joins`; what is left of such trees, their means, shares the centres by frame. So many tokens
    stay unmerged that there are centres enough. The published code hands sums, but not all counts, down a chain, so
    that a mean grows with the length of its chain; it rounds up in each frame, and takes all tokens of a lone frame
    again.

    Args:
        kept: share of the tokens that is kept as it is; with `contextual`, what that leaves.
        expand: the published code's factor of the share; an exact number has none.
    """

    def __init__(
        self, kept: float = 0.7, joins: float = 0.8, least: int = 8, tau: float = 0.9, expand: float = 1.25,
        cut: bool = True, contextual: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(contextual or 0.0)
        self.kept = number("allocator.kept", kept, 0, 1) if contextual is None else 1 - self.contextual
        self.joins = number("allocator.joins", joins, -2, 2)
        self.segments, self.tau = positive("allocator.least", least), number("allocator.tau", tau, -2, 2)
        self.expand, self.cut = number("allocator.expand", expand, 0, above=True), flag("allocator.cut", cut)

    def parts(self, clip: Clip, selector: Selector) -> list[Part]:
        spans = [(0, clip.frames)]
        if self.cut and clip.frames > 1:
            spans = segments(clip.once(frame_means), self.segments, self.tau, clip.reference, mask=True)
        each = spread(clip.count, clip.frames)
        if clip.reference:
            each = [math.ceil(clip.places * clip.share * self.expand)] * clip.frames
        return [
            frame_part(clip, t, each[t], each[t] - min(each[t], math.ceil(each[t] * self.kept)), span)
            for span in spans
            for t in range(*span)
        ]

    def rest(self, clip: Clip, parts: list[Part], rests: list[Part]) -> list[Part]:
        found: list[Part] = []
        while len(found) < len(rests):
            span = parts[len(found)].span
            mine = slice(len(found), len(found) + span[1] - span[0])
            frames, budget = rests[mine], sum(part.count for part in parts[mine])
            if not sum(part.centres for part in parts[mine]):
                found += frames
                continue
            if len(frames) > 1:
                frames = self.trees(clip, frames, budget)
            elif clip.reference:
                frames = [parts[mine][0]]
            sizes = list(map(len, frames))
            wanted = sum(part.centres for part in parts[mine])
            if clip.reference:
                share = wanted / max(1, sum(sizes))
                counts = [n if share >= 1 else math.ceil(n * share) for n in sizes]
            else:
                counts = apportion(sizes, wanted, sizes)
            for part, count in zip(frames, counts, strict=True):
                part.count = part.centres = count
            found += frames
        return found

    def trees(self, clip: Clip, frames: list[Part], budget: int) -> list[Part]:
        """What is left of the frames of a segment: the roots of trees, with their means."""
        start, places = frames[0].span[0], clip.places
        with torch.no_grad():
            x = unit(clip.tokens[slice(*frames[0].span)].detach(), clip.reference)
            free = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
            for t, part in enumerate(frames):
                free[t, part.places % places] = True
            likeness = x[1:] @ x[:-1].transpose(1, 2)
            likeness = likeness.masked_fill(~(free[1:, :, None] & free[:-1, None, :]), -1.0)
            if not clip.reference:
                likeness = likeness.nan_to_num(nan=-1.0)
            value, into = likeness.max(-1)  # [n - 1, L]
            joins = (value > self.joins) & free[1:]
            if (most := max(0, free.numel() - budget)) < int(joins.sum()):
                limit = value.flatten().sort(descending=True).values[most - 1] if most else math.inf
                joins = value > limit
        sums = [clip.tokens[start + t] for t in range(len(frames))]
        sizes = [part.new_ones(places) for part in sums]
        for t in range(len(frames) - 1, 0, -1):
            gone = joins[t - 1].nonzero()[:, 0]
            sums[t - 1] = sums[t - 1].index_add(0, into[t - 1, gone], sums[t][gone])
            more = torch.ones_like(gone, dtype=sizes[t].dtype) if clip.reference else sizes[t][gone]
            sizes[t - 1] = sizes[t - 1].index_add(0, into[t - 1, gone], more)
            free[t, gone] = False
        means = [total / size[:, None] for total, size in zip(sums, sizes, strict=True)]
        found = []
        for t, part in enumerate(frames):
            at = part.places[free[t, part.places % places]]
            found.append(Part(means[t][at % places], at, span=part.span))
        return found
