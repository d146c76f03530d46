"""Tokens linked by their likeness: LLaVA-Scissor.

It does not decompose: the number of a frame's tokens is that of its components, and no token of them is chosen.
"""

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from torch import Tensor

from videopool.compression.clip import Clip, Part, frame_part, joined, unit
from videopool.compression.compress import Budgeted
from videopool.pooling.checks import number


def components(linked: np.ndarray) -> list[Tensor]:
    """The components of a graph [M, M] as indices, ordered by their node of most links, of equal ones the first."""
    labels = connected_components(coo_array(linked), directed=False)[1]
    nodes = np.argsort(-linked.sum(1), kind="stable")
    heads = nodes[np.unique(labels[nodes], return_index=True)[1]]  # of each label
    return [torch.from_numpy(np.nonzero(labels == label)[0]) for label in np.argsort(heads)]


def above(likeness: Tensor, tau: float) -> np.ndarray:
    """The graph of cosines [M, M] above tau; each node is linked to itself."""
    linked = (likeness > tau).cpu().numpy()
    np.fill_diagonal(linked, True)
    return linked


def linked_to(likeness: Tensor, wanted: int) -> list[Tensor]:
    """Single-linkage clusters of cosines [M, M]: the likest pairs join until the wanted number is left."""
    count = len(likeness)
    if wanted >= count:
        return [torch.tensor([node]) for node in range(count)]
    apart = (1 - likeness.double()).clamp(min=0).fill_diagonal_(0).cpu().numpy()
    tree = linkage(squareform(apart, checks=False), "single")[: count - wanted]
    rows = np.repeat(np.arange(count, count + len(tree)), 2)
    graph = coo_array((np.ones(len(rows)), (rows, tree[:, :2].astype(int).ravel())), shape=(2 * count, 2 * count))
    labels = connected_components(graph, directed=False)[1][:count]
    return [torch.from_numpy(np.nonzero(labels == label)[0]) for label in dict.fromkeys(labels.tolist())]


class Components(Budgeted):
    """Means of linked tokens, first in each frame, then over all frames: LLaVA-Scissor (arXiv 2506.21862).

    Tokens link at cosines above tau. In the end each token of the clip joins the mean that it is most like. For an
    exact number the second step joins the likest pairs until it is left; if the first step leaves too few, tau rises.

    Args:
        tau: cosine.
    """

    def __init__(
        self, tokens: int | None = None, share: float | None = None, tau: float = 0.9, reference: bool = False,
        name: str = "scissor",
    ) -> None:  # fmt: skip
        super().__init__(tokens, share, reference, name, free=True)
        self.tau = number("tau", tau, -2, 2)

    def likeness(self, clip: Clip, values: Tensor) -> Tensor:
        """Cosines [M, M]; a token of zeros is like none, in the published code NaN."""
        x = unit(values.detach(), clip.reference)
        return (x @ x.T).nan_to_num(nan=-2.0)

    def means(self, part: Part, groups: list[Tensor]) -> Part:
        """One token for each group, at the place of its first."""
        groups = [group.to(part.places.device) for group in groups]
        owner = torch.cat([torch.full_like(group, i) for i, group in enumerate(groups)])
        members = torch.cat(groups)
        x = part.values.new_zeros(len(groups), part.values.shape[-1]).index_add(0, owner, part.values[members])
        sizes = torch.bincount(owner, minlength=len(groups))[:, None]
        return Part(x / sizes, torch.stack([part.places[group[0]] for group in groups]))

    def compress(self, clip: Clip) -> Part:
        frames = [frame_part(clip, t) for t in range(clip.frames)]
        alike = [self.likeness(clip, part.values) for part in frames]
        exact = not (self.free or self.reference)
        low, high = self.tau, 3.0
        groups = [components(above(cosines, low)) for cosines in alike]
        for _ in range(16 if exact and sum(map(len, groups)) < clip.count else 0):
            middle = (low + high) / 2
            groups = [components(above(cosines, middle)) for cosines in alike]
            low, high = (low, middle) if sum(map(len, groups)) >= clip.count else (middle, high)
        if high < 3.0 or low > self.tau:
            groups = [components(above(cosines, high)) for cosines in alike]
        first = joined([self.means(*pair) for pair in zip(frames, groups, strict=True)])
        cosines = self.likeness(clip, first.values)
        second = self.means(first, linked_to(cosines, clip.count) if exact else components(above(cosines, self.tau)))
        every = joined(frames)
        with torch.no_grad():
            nearest = unit(every.values, clip.reference) @ unit(second.values, clip.reference).T
            owner = (nearest if clip.reference else nearest.nan_to_num(nan=-2.0)).argmax(1)
        sums = second.values.index_add(0, owner, every.values)
        sizes = torch.bincount(owner, minlength=len(second))[:, None] + 1
        return Part(sums / sizes, second.places)
