"""Positions of a clip's entries, from its first token on: one number, or three of time, row and column.

Entries are asked for in the order in which they stand: the text before a frame, its tokens, newlines. Qwen2.5-VL counts
a whole clip as one grid, Qwen3-VL each frame: what follows a grid begins behind its largest side, not its largest
position.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from videopool.models import Backbone
from videopool.models.texts import FRAMES, FrameTexts, Stamps

Size = tuple[int, int, int]  # of a grid: frames, height, width


class Whole:
    """Those of the whole grid, with all its texts and newlines; a frame's text stands right before its tokens."""

    def __init__(self, backbone: Backbone, texts: FrameTexts, size: Size, layout: str) -> None:
        frames, height, width = size
        spread = layout == FRAMES
        self.width, self.row = width, width + (backbone.row_newlines and spread)
        between = [len(backbone.text_ids(texts.between(*pair))) if spread else 0 for pair in pairwise(range(frames))]
        taken = max(height, width) if backbone.mrope else height * self.row  # positions that a frame takes
        # Of the first token of each frame, and of what follows the last one.
        self.first = list(accumulate([*between, 0], lambda at, text: at + taken + text, initial=0))
        self.patches = height * width
        self.end = self.first.pop()

    def text(self, count: int, frame: int) -> Tensor:
        """[count] of the text before a frame."""
        return torch.arange(-count, 0) + self.first[frame]

    def tokens(self, places: Tensor) -> Tensor:
        """[n] of tokens at flat places."""
        frames, inside = places // self.patches, places % self.patches
        return torch.tensor(self.first)[frames] + inside // self.width * self.row + inside % self.width

    def newline(self, last: Tensor) -> Tensor:
        """[n] of the newlines behind the rows of places [n]."""
        return self.tokens(last // self.width * self.width + self.width - 1) + 1


class Grids(Whole):
    """As Whole's, of a family that counts each frame as a grid: [n, 3].

    With `cells`, the size of a pooled grid, they go on from frame to frame, and a frame counts as a grid of that size;
    with `line` they go on one by one.
    """

    def __init__(
        self, backbone: Backbone, texts: FrameTexts, size: Size, layout: str, cells: Size | None, line: bool
    ) -> None:
        super().__init__(backbone, texts, size, layout)
        self.cells, self.line, self.moving = cells, line, line or cells is not None
        if self.moving:
            self.end = 0

    def text(self, count: int, frame: int) -> Tensor:
        return three(self._next(count) if self.moving else super().text(count, frame))

    def tokens(self, places: Tensor) -> Tensor:
        if self.line:
            return three(self._next(len(places)))
        width, patches = self.width, self.patches
        if self.cells is not None:  # all cells of one frame, or of all
            _, height, width = self.cells
            patches = height * width
            places = torch.arange(len(places))
        frames, inside = places // patches, places % patches
        first = torch.tensor(self.first)[frames] if self.cells is None else self.end + frames * max(height, width)
        if self.cells is not None:
            self.end += len(places) // patches * max(height, width)
        return torch.stack([first, first + inside // width, first + inside % width], dim=-1)

    def _next(self, count: int) -> Tensor:
        self.end += count
        return torch.arange(self.end - count, self.end)


def three(positions: Tensor) -> Tensor:
    """[n] as [n, 3], or [n, 3] as it is."""
    return positions if positions.dim() > 1 else positions[:, None].expand(-1, 3)


def one_grid(
    backbone: Backbone, count: int, size: Size, stamps: Sequence[Stamps], places: Tensor | None, cells: Size | None
) -> tuple[Tensor, list[int]]:
    """Positions [B, N, 3] of clips that count as one grid each, and of what follows them.

    Those of tokens at places [B, N] of the grid, by the model's rule. Otherwise a pooled grid has those of a grid of
    its own size, and other tokens stand one after another.
    """
    positions, ends = list[Tensor](), list[int]()
    for clip, stamp in enumerate(stamps):
        if places is not None:
            positions.append(backbone.grid_positions(size, size[0], stamp)[places[clip]])
            ends.append(max(size[1:]))
        elif cells is not None:
            positions.append(backbone.grid_positions(cells, size[0], stamp))
            ends.append(max(cells[1:]))
        else:
            positions.append(three(torch.arange(count)))
            ends.append(count)
    return torch.stack(positions), ends


def turned(positions: Tensor) -> Tensor:
    """Positions [B, L, 3] as transformers takes them, [3, B, L]; of one axis, [B, L], as they are."""
    return positions.permute(2, 0, 1) if positions.dim() == 3 else positions
