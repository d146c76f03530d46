"""Allocators whose still places become means over segments of frames, (first frame, end)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from videopool.compression.allocators import Allocator
from videopool.compression.clip import (
    Clip,
    Part,
    apportion,
    best,
    cosines,
    density_peaks,
    frame_part,
    raised,
    squared_distances,
    unit,
)
from videopool.compression.selectors import Selector, frame_means
from videopool.pooling.checks import number, positive

Span = tuple[int, int]


def windows(alike: np.ndarray, longest: int) -> tuple[list[Span], int]:
    """The windows with the largest total gain, and that gain, from still places [T - 1, L]: HoliTom.

    A window of n > 1 frames gains (places that are still in all of it) * (n - 1). Of equal choices the shorter window
    stays.
    """
    frames = len(alike) + 1
    gains, starts = [0] * (frames + 1), [0] * (frames + 1)  # of the first so many frames
    for end in range(1, frames + 1):
        gains[end], starts[end] = gains[end - 1], end - 1
        still = np.ones(alike.shape[1], dtype=bool)
        for first in range(end - 2, max(-1, end - longest - 1), -1):
            still &= alike[first]
            gain = gains[first] + int(still.sum()) * (end - first - 1)
            if gain > gains[end]:
                gains[end], starts[end] = gain, first
            if not still.any():
                break
    found, end = [], frames
    while end:
        found.append((starts[end], end))
        end = starts[end]
    return found[::-1], gains[-1]


class Windows(Allocator):
    """The still places of each window as means over it, the others frame by frame: HoliTom (arXiv 2505.21334).

    Windows are those of `windows()`; a place is still if its cosine with the next frame exceeds tau in all of a window.
    Means absorb each other; of other tokens the share `contextual` does. Every part keeps the same share of its
    candidates. If means leave fewer than N candidates, tau rises. The published code keeps the share R of what is left
    (at most 1, so still clips end below R), rounded up in each frame.

    Args:
        tau: cosine, from -1 to 1.
        longest: frames of a window at most.
    """

    small = 0  # with reference=true, parts of so many candidates stay as they are

    def __init__(self, contextual: float = 0.0, tau: float = 0.8, longest: int = 1024) -> None:
        super().__init__(contextual)
        self.tau = number("allocator.tau", tau, -1, 2)
        self.longest = positive("allocator.longest", longest)

    def spans(self, clip: Clip, tau: float) -> list[tuple[Span, Tensor]]:
        """Segments, and which places [L] are still in each."""
        device = clip.tokens.device
        alike = (clip.once(neighbours) > tau).cpu().numpy()
        return [
            (span, torch.from_numpy(alike[span[0] : span[1] - 1].all(0) & (span[1] - span[0] > 1)).to(device))
            for span in windows(alike, self.longest)[0]
        ]

    def quota(self, clip: Clip, parts: list[Part]) -> list[int]:
        """Tokens of each part as the published code counts them."""
        share = min(1.0, clip.share * (clip.frames * clip.places) / sum(map(len, parts)))
        return [round(len(part) * share) if part.still else math.ceil(len(part) * share) for part in parts]

    def parts(self, clip: Clip, selector: Selector) -> list[Part]:
        def enough(tau: float) -> bool:
            still = [(end - start - 1) * int(places.sum()) for (start, end), places in self.spans(clip, tau)]
            return clip.reference or clip.frames * clip.places - sum(still) >= clip.count

        parts: list[Part] = []
        for (start, end), still in self.spans(clip, raised(self.tau, enough)):
            if still.any():
                first = frame_part(clip, start).of(still)
                parts.append(Part(clip.tokens[start:end, still].mean(0), first.places, still=True))
            parts += [frame_part(clip, t).of(~still) for t in range(start, end)]
        sizes = list(map(len, parts))
        counts = self.quota(clip, parts) if clip.reference else apportion(sizes, clip.count, sizes)
        for part, count in zip(parts, counts, strict=True):
            part.count, part.centres = count, count if part.still else round(self.contextual * count)
            if clip.reference and len(part) <= self.small:
                part.centres = 0
        return parts


def neighbours(clip: Clip) -> Tensor:
    """Cosines [T - 1, L] of each token with the one at its place in the next frame."""
    return cosines(clip, range(1, clip.frames), range(clip.frames - 1))


def units(clip: Clip) -> Tensor:
    """Tokens [T, L, D] of norm 1."""
    return unit(clip.tokens.detach())


def contiguous(labels: Sequence[int]) -> list[int]:
    """Labels of frames in which each label is one run.

    Of each label its longest run stays (several of equal length all stay), a single frame never. What lies between
    takes the label of the longer neighbouring run, of equal ones the left; without neighbours 0.
    """
    ends = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    runs = list(zip([0, *ends], [*ends, len(labels)], strict=True))
    most = {label: max(b - a for a, b in runs if labels[a] == label) for label in set(labels)}
    found = [-1] * len(labels)
    for a, b in runs:
        if b - a == most[labels[a]] > 1:
            found[a:b] = labels[a:b]
    start = 0
    while start < len(found):
        if found[start] >= 0:
            start += 1
            continue
        end = next((i for i in range(start, len(found)) if found[i] >= 0), len(found))
        left = right = 0
        while start - left > 0 and found[start - left - 1] == found[start - 1]:
            left += 1
        while end + right < len(found) and found[end + right] == found[end]:
            right += 1
        label = found[start - 1] if left >= max(right, 1) else found[end] if right else 0
        found[start:end] = [label] * (end - start)
    return found


class Clusters(Windows):
    """As `Windows`, with segments of frames clustered by density peaks: PruneVid's first stage (arXiv 2412.16117).

    Frames are their means; a place is still if the mean cosine of its tokens in all pairs of the segment's frames
    exceeds tau.

    Args:
        share: clusters, as a share of the frames.
        cluster: with reference=true the share of each part's candidates that stays, of parts of more than 14.
    """

    small = 14

    def __init__(
        self, contextual: float = 1.0, tau: float = 0.8, share: float = 0.25, near: int = 7, cluster: float = 0.5
    ) -> None:
        super().__init__(contextual, tau)
        self.share = number("allocator.share", share, 0, 1)
        self.near = positive("allocator.near", near)
        self.cluster = number("allocator.cluster", cluster, 0, 1)

    def labels(self, clip: Clip) -> list[int]:
        """The cluster of each frame, before runs are made of them."""
        means = clip.once(frame_means)
        centres = best(density_peaks(means, self.near), max(1, int(clip.frames * self.share)))
        labels = squared_distances(means, means[centres]).argmin(1)
        labels[centres] = torch.arange(len(centres), device=labels.device)
        return labels.tolist()

    def spans(self, clip: Clip, tau: float) -> list[tuple[Span, Tensor]]:
        labels = contiguous(clip.once(self.labels))
        ends = [*(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
        found = []
        for span in zip([0, *ends[:-1]], ends, strict=True):
            x, frames = clip.once(units)[slice(*span)], span[1] - span[0]
            whole = x.sum(0)
            own = float(frames) if clip.reference else torch.linalg.vecdot(x, x).sum(0)
            alike = (torch.linalg.vecdot(whole, whole) - own) / max(1, frames * (frames - 1))
            found.append((span, (alike > tau) & (frames > 1)))
        return found

    def quota(self, clip: Clip, parts: list[Part]) -> list[int]:
        return [int(len(part) * self.cluster) if len(part) > self.small else len(part) for part in parts]
