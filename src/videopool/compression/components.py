"""Tokens linked by their likeness: LLaVA-Scissor.

It does not decompose: the number of a frame's tokens is that of its components, and no token of them is chosen.
"""

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from videopool.compression.clip import Clip, Part, frame_part, joined, likest, raised, unit
from videopool.compression.compress import Budgeted
from videopool.pooling.checks import number

BLOCK = 512  # rows of likeness at once


def components(linked: np.ndarray) -> np.ndarray:
    """The component [M] of each node of a graph [M, M], in order of its node of most links, of equal ones the first."""
    labels = connected_components(csr_array(linked), directed=False)[1]
    nodes = np.argsort(-linked.sum(1), kind="stable")
    heads = nodes[np.unique(labels[nodes], return_index=True)[1]]  # of each label
    return heads.argsort().argsort()[labels]


def above(likeness: Tensor, tau: float) -> np.ndarray:
    """The graph of cosines [M, M] above tau; each node is linked to itself."""
    linked = (likeness > tau).cpu().numpy()
    np.fill_diagonal(linked, True)
    return linked


def spanning_trees(likeness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges [F, M - 1, 2] of maximum spanning trees, and their cosines [F, M - 1], of cosines [F, M, M]: Prim's way."""
    count, size = likeness.shape[:2]
    every = np.arange(count)
    nearest, to, inside = likeness[:, 0].copy(), np.zeros((count, size), dtype=np.int64), np.zeros((count, size), bool)
    edges, values = np.zeros((count, size - 1, 2), dtype=np.int64), np.zeros((count, size - 1))
    node = to[:, 0]
    for step in range(size - 1):
        inside[every, node], nearest[every, node] = True, -np.inf
        node = nearest.argmax(1)
        edges[:, step, 0], edges[:, step, 1], values[:, step] = node, to[every, node], nearest[every, node]
        rows = likeness[every, node]
        nearer = (rows > nearest) & ~inside
        np.copyto(nearest, rows, where=nearer)
        np.copyto(to, node[:, None], where=nearer)
    return edges, values


def linked_to(likeness: Tensor, wanted: int) -> np.ndarray:
    """Single-linkage clusters [M] of cosines [M, M]: the likest pairs join until the wanted number is left.

    These pairs are the first edges of the maximum spanning tree.
    """
    edges, values = (found[0] for found in spanning_trees(likeness.cpu().numpy()[None]))
    count = len(likeness)
    kept = edges[np.argsort(-values, kind="stable")[: count - wanted]]
    graph = coo_array((np.ones(len(kept)), (kept[:, 0], kept[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(np.unique(labels, return_index=True)[1][labels], return_inverse=True)[1]


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
        alike = x.new_empty(len(x), len(x))
        for start in range(0, len(x), BLOCK):  # half of the products, as the other half is the same
            own = slice(start, start + BLOCK)
            alike[own, : own.stop] = x[own] @ x[: own.stop].T
            alike[:start, own] = alike[own, :start].T
        return alike if bool(x.isfinite().all()) else alike.nan_to_num_(nan=-2.0)

    def means(self, part: Part, labels: np.ndarray) -> Part:
        """The mean of each label, at the place of its first token."""
        owner = torch.from_numpy(labels).to(part.places.device)
        sizes = torch.bincount(owner)
        x = part.values.new_zeros(len(sizes), part.values.shape[-1]).index_add(0, owner, part.values)
        first = torch.from_numpy(np.unique(labels, return_index=True)[1]).to(owner)
        return Part(x / sizes[:, None], part.places[first])

    def compress(self, clip: Clip) -> Part:
        frames = [frame_part(clip, t) for t in range(clip.frames)]
        alike = [self.likeness(clip, part.values) for part in frames]
        exact, tau = not (self.free or self.reference), self.tau

        if exact:  # a graph has as many components as edges of its spanning tree are missing, and one more
            trees = spanning_trees(torch.stack(alike).cpu().numpy())[1]
            tau = raised(tau, lambda tau: clip.frames + int((trees <= tau).sum()) >= clip.count)
        labels = [components(above(cosines, tau)) for cosines in alike]
        first = joined([self.means(*pair) for pair in zip(frames, labels, strict=True)])
        cosines = self.likeness(clip, first.values)
        second = self.means(first, linked_to(cosines, clip.count) if exact else components(above(cosines, tau)))
        every = joined(frames)
        with torch.no_grad():
            owner = likest(every.values, second.values, clip.reference)
        sums = second.values.index_add(0, owner, every.values)
        sizes = torch.bincount(owner, minlength=len(second))[:, None] + 1
        return Part(sums / sizes, second.places)
