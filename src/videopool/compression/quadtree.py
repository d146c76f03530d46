"""Quadtrees of frames, joined over time: STTM.

It does not decompose: there are no candidates of which some are kept. A node of a tree is a box of tokens, and where it
stays depends on all its children.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from videopool.compression.clip import Clip, Part, raised, unit
from videopool.compression.compress import Budgeted
from videopool.pooling.checks import number, whole


class Nodes(NamedTuple):
    """Nodes in order of frame and place: means [M, D] and boxes [M, 5] (frame, top, left, bottom, right)."""

    values: Tensor
    boxes: Tensor


class Level(NamedTuple):
    """One level: means [T, h, w, D]; rows and columns of the grid below each node; its parent's row and column."""

    values: Tensor
    rows: Tensor  # [h, 2], half-open
    cols: Tensor
    up: tuple[Tensor, Tensor]  # the row and column of each node's parent


def parents(size: int) -> Tensor:
    """The parent of each row: pairs, but an odd number leaves its first alone."""
    return (torch.arange(size) + size % 2) // 2


def levels(x: Tensor) -> list[Level]:
    """From the tokens [T, H, W, D] up to where a side is 2."""
    edges = [torch.stack([torch.arange(n), torch.arange(n) + 1], 1) for n in x.shape[1:3]]
    found = []
    while True:
        up = (parents(x.shape[1]).to(x.device), parents(x.shape[2]).to(x.device))
        found.append(Level(x, edges[0], edges[1], up))
        if min(x.shape[1:3]) <= 2:
            return found
        for axis in (1, 2):
            size, to = -(-x.shape[axis] // 2), up[axis - 1]
            total = x.new_zeros(*x.shape[:axis], size, *x.shape[axis + 1 :]).index_add(axis, to, x)
            number = torch.bincount(to, minlength=size).to(x)
            x = total / number.view(-1, *[1] * (3 - axis))
            edge = edges[axis - 1]
            start = torch.full((size,), 10**9).scatter_reduce(0, to.cpu(), edge[:, 0], "amin")
            end = torch.zeros(size, dtype=torch.long).scatter_reduce(0, to.cpu(), edge[:, 1], "amax")
            edges[axis - 1] = torch.stack([start, end], 1)


@torch.no_grad()
def likeness_of(tree: list[Level], reference: bool) -> list[Tensor]:
    """For each level above the last, the least cosine [T, h, w] of its nodes with their children."""
    found = []
    for below, level in pairwise(tree):
        x, mean = unit(below.values.detach()), unit(level.values.detach())
        least = torch.linalg.vecdot(x, mean[:, below.up[0]][:, :, below.up[1]]).clamp(-1, 1)
        for axis in (1, 2):
            size = [*least.shape]
            size[axis] = mean.shape[axis]
            to = below.up[axis - 1].view(-1, *[1] * (2 - axis)).expand_as(least)
            least = least.new_full(size, torch.inf).scatter_reduce(axis, to, least, "amin")
        if reference:  # missing children of the border are read as the first token of the level below
            lone = [torch.bincount(to, minlength=n) < 2 for to, n in zip(below.up, least.shape[1:], strict=True)]
            border = lone[0][:, None] | lone[1][None]
            corner = torch.linalg.vecdot(mean, x[:, :1, :1]).clamp(-1, 1)
            least = torch.where(border, torch.minimum(least, corner), least)
        found.append(least)
    return found


def staying(tree: list[Level], likeness: list[Tensor], tau: float, root: int) -> list[Tensor]:
    """Which nodes [T, h, w] of each level stay: from the root level down those like all their children, then all."""
    start = max(0, len(tree) - 1 - root)
    stay = [torch.zeros(level.values.shape[:3], dtype=torch.bool, device=level.values.device) for level in tree]
    active = ~stay[start]
    for place in range(start, 0, -1):
        stay[place] = active & (likeness[place - 1] >= tau)
        down = tree[place - 1].up
        active = (active & ~stay[place])[:, down[0]][:, :, down[1]]
    stay[0] = active
    return stay


def nodes_of(clip: Clip, tree: list[Level], stay: list[Tensor]) -> Nodes:
    """The nodes that stay."""
    values, boxes = [], []
    for level, own in zip(tree, stay, strict=True):
        t, row, col = own.nonzero(as_tuple=True)
        values.append(level.values[t, row, col])
        rows, cols = level.rows.to(t.device)[row], level.cols.to(t.device)[col]
        boxes.append(torch.stack([t, rows[:, 0], cols[:, 0], rows[:, 1], cols[:, 1]], 1))
    every, box = torch.cat(values), torch.cat(boxes)
    order = (box[:, 0] * clip.places + box[:, 1] * clip.width + box[:, 2]).argsort()
    return Nodes(every[order], box[order])


def pairs_of(nodes: Nodes) -> tuple[Tensor, Tensor]:
    """Pairs [P, 2] of nodes in consecutive frames of which one box holds the other, and their cosines [P]."""
    found = [torch.empty(0, 2, dtype=torch.long, device=nodes.boxes.device)]
    starts = torch.searchsorted(
        nodes.boxes[:, 0].contiguous(), torch.arange(int(nodes.boxes[-1, 0]) + 2).to(nodes.boxes)
    )
    for a, b, c in zip(starts, starts[1:], starts[2:], strict=False):
        early, late = nodes.boxes[a:b, None, 1:], nodes.boxes[None, b:c, 1:]
        above, below = early[..., :2] - late[..., :2], early[..., 2:] - late[..., 2:]
        holds = ((above <= 0) & (below >= 0)).all(-1) | ((above >= 0) & (below <= 0)).all(-1)
        found.append(holds.nonzero() + torch.stack([a, b]))
    pairs = torch.cat(found)
    x = nodes.values.detach()
    x = x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-8)
    return pairs, torch.linalg.vecdot(x[pairs[:, 0]], x[pairs[:, 1]])


def united(count: int, pairs: np.ndarray, reference: bool = False) -> np.ndarray:
    """The first node of the union that each of so many nodes is in.

    The published code lowers each node to the least of its pairs until nothing points on, which may leave some behind.
    """
    first = np.arange(count)
    if not reference:
        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
        labels = connected_components(graph, directed=False)[1]
        least = np.full(count, count)
        np.minimum.at(least, labels, first)
        return least[labels]
    while True:
        low = np.minimum(first[pairs[:, 0]], first[pairs[:, 1]])
        lowered = first.copy()
        np.minimum.at(lowered, pairs[:, 0], low)
        np.minimum.at(lowered, pairs[:, 1], low)
        first = lowered[lowered]
        if (first == first[first]).all():
            return first


def merged_to(count: int, wanted: int, pairs: np.ndarray, likeness: np.ndarray) -> np.ndarray:
    """Unions of the likest pairs, as many as leave the wanted number, or as there are pairs that join two unions."""
    first = np.arange(count)
    for place in np.argsort(-likeness, kind="stable"):
        if count <= wanted:
            break
        a, b = sorted(first[pairs[place]])
        if a != b:
            first[first == b] = a
            count -= 1
    return first


class Quadtree(Budgeted):
    """Boxes of alike tokens as means, then alike boxes of consecutive frames joined: STTM (arXiv 2507.07990).

    A node of 2 x 2 stays whole if its mean has a cosine of at least tau_s with all its children. Boxes of consecutive
    frames of which one holds the other join at a cosine of at least tau_t; a token is the plain mean of its boxes. For
    an exact number the likest boxes join until it is left, whatever tau_t; if the boxes are too few, tau_s rises, and
    if joining over time cannot come down to it, any likest two join.

    Args:
        tau_s, tau_t: cosines; tau_t null: boxes are not joined.
        root: level of the largest boxes, counted from the smallest level.
    """

    def __init__(
        self, tokens: int | None = None, share: float | None = None, tau_s: float = 0.85, tau_t: float | None = 0.6,
        root: int = 1, reference: bool = False, name: str = "sttm",
    ) -> None:  # fmt: skip
        super().__init__(tokens, share, reference, name, free=True)
        self.tau_s = number("tau_s", tau_s, -2, 2)
        self.tau_t = None if tau_t is None else number("tau_t", tau_t, -2, 2)
        self.root = whole("root", root)

    def boxes(self, clip: Clip) -> tuple[Nodes, np.ndarray]:
        """Nodes, and the first node of the union that each is in."""
        tree = levels(clip.tokens.unflatten(1, (clip.height, clip.width)))
        likeness = likeness_of(tree, clip.reference)
        if self.free or self.reference:
            nodes = nodes_of(clip, tree, staying(tree, likeness, self.tau_s, self.root))
            if self.tau_t is None:
                return nodes, np.arange(len(nodes.boxes))
            pairs, cosines = pairs_of(nodes)
            return nodes, united(len(nodes.boxes), pairs[cosines >= self.tau_t].cpu().numpy(), self.reference)

        def enough(tau: float) -> bool:
            return sum(int(own.sum()) for own in staying(tree, likeness, tau, self.root)) >= clip.count

        nodes = nodes_of(clip, tree, staying(tree, likeness, raised(self.tau_s, enough), self.root))
        pairs, cosines = pairs_of(nodes)
        count = len(nodes.boxes)
        first = merged_to(count, clip.count, pairs.cpu().numpy(), cosines.cpu().numpy())
        if (left := np.unique(first)).size > clip.count:
            x = unit(nodes.values.detach()[torch.from_numpy(left).to(nodes.boxes.device)])
            every = torch.combinations(torch.arange(len(left)), 2)
            alike = (x @ x.T).cpu().numpy()[every[:, 0], every[:, 1]]
            again = merged_to(len(left), clip.count, every.numpy(), alike)
            first = left[again[np.searchsorted(left, first)]]
        return nodes, first

    def compress(self, clip: Clip) -> Part:
        nodes, first = self.boxes(clip)
        left, group = np.unique(first, return_inverse=True)
        owner = torch.from_numpy(group).to(nodes.boxes.device)
        x = nodes.values.new_zeros(len(left), nodes.values.shape[-1]).index_add(0, owner, nodes.values)
        box = nodes.boxes[torch.from_numpy(left).to(nodes.boxes.device)]
        places = box[:, 0] * clip.places + box[:, 1] * clip.width + box[:, 2]
        return Part(x / torch.bincount(owner, minlength=len(left))[:, None], places)
