"""Poolings that need all tokens of a window at once, and so cannot take one axis after another.

Windows are those of adaptive pooling, and boxes: a cell reads a stretch of frames, rows and columns. Along an axis
windows have at most two lengths, so cells whose windows have the same lengths are taken together.

Shapes: grid [B, T, H, W, D]; boxes [B, h, w, K, D] of one output frame, with the K tokens of each cell's window.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from videopool.pooling.adaptive import Adaptive, axis_windows
from videopool.pooling.base import GridPooling, PoolingContext


def cells_by_length(size: int, cells: int) -> list[tuple[list[int], list[list[int]]]]:
    """Cells of one axis whose windows have the same length: their numbers, and what each of them reads."""
    found: dict[int, tuple[list[int], list[list[int]]]] = {}
    for cell, (start, end) in enumerate(axis_windows(size, cells)):
        numbers, read = found.setdefault(end - start, ([], []))
        numbers.append(cell)
        read.append(list(range(start, end)))
    return list(found.values())


def boxes_of(frames: Tensor, rows: Sequence[Sequence[int]], cols: Sequence[Sequence[int]]) -> Tensor:
    """Frames [B, t, H, W, C] to [B, h, w, K, C], where h cells read the rows and w cells the columns given."""
    for axis, read in ((3, cols), (2, rows)):
        flat = [place for window in read for place in window]
        if flat != list(range(frames.shape[axis])):
            frames = frames.index_select(axis, torch.tensor(flat, device=frames.device))
        frames = frames.unflatten(axis, (len(read), len(read[0])))
    return frames.permute(0, 2, 4, 1, 3, 5, 6).flatten(3, 5)  # from [B, t, h, kh, w, kw, C]


def pool_boxes(grids: Sequence[Tensor], out: tuple[int, int, int], reduce: Callable[..., Tensor]) -> Tensor:
    """Pool grids of equal frames, height and width with windows that are boxes, one output frame at a time.

    Args:
        grids: [B, T, H, W, C], each with its own C.
        out: (T', H', W').
        reduce: the boxes of each grid to [B, h, w, D].

    Returns:
        [B, T', H', W', D].
    """
    _, frames, height, width = grids[0].shape[:4]
    pooled = []
    for start, end in axis_windows(frames, out[0]):
        parts = [
            (ys, xs, reduce(*(boxes_of(grid[:, start:end], rows, cols) for grid in grids)))
            for ys, rows in cells_by_length(height, out[1])
            for xs, cols in cells_by_length(width, out[2])
        ]
        frame = parts[0][2]
        if len(parts) > 1:
            frame = frame.new_empty(frame.shape[0], *out[1:], frame.shape[-1])
            for ys, xs, part in parts:
                frame[:, torch.tensor(ys)[:, None], torch.tensor(xs)] = part
        pooled.append(frame)
    return torch.stack(pooled, dim=1)


def weighted_mean(boxes: Tensor, scores: Tensor) -> Tensor:
    """Boxes [B, h, w, K, D] and scores [B, h, w, K, 1] to their mean [B, h, w, D], weighted by the scores' softmax."""
    return (boxes.to(scores.dtype) * scores.softmax(dim=-2)).sum(dim=-2).to(boxes.dtype)


class BoxPooling(GridPooling):
    """A pooling over adaptive windows taken whole.

    Args:
        shape: output (frames, height, width), as of `Adaptive`: null keeps an axis, and so does an axis that is
            shorter than asked.

    Raises:
        PoolingShapeError: shape is not three positive integers or nulls.
    """

    def __init__(self, shape: Sequence[int | None] = (16, 12, 12)) -> None:
        super().__init__()
        self.target = Adaptive(shape)

    @abstractmethod
    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        """[B, T, H, W, D] -> [B, T', H', W', D]."""

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return self.target.out_shape(frames, height, width)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        return self.target.windows(frames, height, width)

    @property
    def sizes(self) -> str:
        """The shape as labels have it."""
        return "x".join(
            name if size is None else str(size) for name, size in zip("THW", self.target.shape, strict=True)
        )
