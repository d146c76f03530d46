"""Base classes of poolings: maps from a patch grid to visual tokens.

Shapes: grid [B, T, H, W, D] = [batch, frames, height, width, dim]; tokens [B, N, D].
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from videopool.errors import UserError
from videopool.pooling.tiling import equidistant, filled

THUMBNAIL = (3, 2)  # rows and columns of frames
TOWER = ("saliency", "keys", "frame_vectors")  # fields of PoolingContext that the tower gives beside its features


class PoolingShapeError(UserError, ValueError):
    """The settings of a pooling do not describe a shape."""


class PoolingContractError(UserError, TypeError):
    """A pooling breaks its announcement, or its own code fails."""


@dataclass(frozen=True)
class PoolingContext:
    """Inputs beside the grid. Only the fields in a pooling's `needs` are filled in.

    Attributes:
        frame_times: [T] seconds of the frames, from the clip's first frame; their mean for an image tiled of frames.
            All clips of a batch have the same times.
        cls: [B, T, D] the tower's CLS token of each frame, at the stage of the grid.
        text: [B, D] the prompt as one vector in the space of the grid.
        thumbnail: [B, H, W, D] the grid of one image that shows some of the frames.
        saliency: [B, T, H, W] attention that each patch draws in a block of the tower, float32; see `Pooling.saliency`.
        keys: [B, T, H, W, K] attention keys of the patches in that block, the mean over its heads.
        frame_vectors: [B, T, F] one vector of each frame, from the tower's pooling head, float32.
    """

    frame_times: Tensor | None = None
    cls: Tensor | None = None
    text: Tensor | None = None
    thumbnail: Tensor | None = None
    saliency: Tensor | None = None
    keys: Tensor | None = None
    frame_vectors: Tensor | None = None

    def of_frames(self, frames: Sequence[int]) -> "PoolingContext":
        """The context of some frames, by index."""
        chosen = list(frames)
        times = None if self.frame_times is None else self.frame_times[chosen]
        by_frame = {name: getattr(self, name) for name in ("cls", *TOWER)}
        return replace(self, frame_times=times, **{k: None if v is None else v[:, chosen] for k, v in by_frame.items()})

    def of_clip(self, row: int) -> "PoolingContext":
        """The context of one clip of the batch."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "frame_times"}
        return replace(
            self, **{name: None if values is None else values[row : row + 1] for name, values in own.items()}
        )


class Pooling(nn.Module, ABC):
    """A map from a patch grid to visual tokens. Knows tensors only: no model, no configuration, no video.

    Constructors raise PoolingShapeError for a setting out of range or an unknown word.
    """

    needs: frozenset[str] = frozenset()  # names of PoolingContext fields
    # Which saliency the context gives: of the "cls" token, "received" from all positions, "head": SigLIP's pooling
    # head's, "tower": the first of these that there is. Mean over heads.
    saliency: str | None = None
    # The block of the tower that saliency and keys come from: 1 for the first, -1 for the last; None: the one whose
    # output is the (last) feature layer.
    block: int | None = None
    one_head: bool = False  # True: they come from whole queries and keys, as if the block had one head
    varies: bool = False  # True: clips differ in their tokens; num_tokens is the most, and each is pooled alone
    blind: bool = False  # True: 0 tokens are intended, not a size that came out as 0
    tiles: bool = False  # True: has `tile`, uint8 frames [T, h, w, 3] to one image [1, h', w', 3] before the tower
    dim: int | None = None  # the only D accepted; None: any
    # Added to `map_signature`, because the random probe grid may not exercise them (a threshold no token exceeds).
    limits: tuple[float, ...] = ()
    _label = ""  # what `label` returns; "": the class name

    @abstractmethod
    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        """[B, T, H, W, D] -> [B, N, D]."""

    @abstractmethod
    def num_tokens(self, frames: int, height: int, width: int) -> int:
        """N for a grid of this size, without running."""

    def shown(self, frames: int) -> list[int]:
        """Indices of the frames on the thumbnail: six, as in TS-LLaVA."""
        return equidistant(THUMBNAIL[0] * THUMBNAIL[1], frames)

    def thumbnail(self, frames: np.ndarray) -> np.ndarray:
        """The shown frames, uint8 [n, h, w, 3], as one image [1, h', w', 3]."""
        return filled(frames, *THUMBNAIL)

    @property
    def label(self) -> str:
        """Short name for tables, legends and folder names."""
        return self._label or type(self).__name__.lower()

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        """What the map does to a grid of this size, for the record."""
        return {}

    def token_places(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor | None:
        """[B, N] the flat place t * H * W + row * W + column that each token came from, of merged ones their anchor's.

        None for a pooling whose tokens have no places; -1 for a token without one, such as a CLS token.
        """
        return None


class GridPooling(Pooling):
    """A pooling from grid to grid. Its tokens are the cells, frame after frame, row after row."""

    @abstractmethod
    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        """[B, T, H, W, D] -> [B, T', H', W', D]."""

    @abstractmethod
    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T', H', W') for a grid of this size."""

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return self.pool(grid, context).flatten(1, 3)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        out_frames, out_height, out_width = self.out_shape(frames, height, width)
        return out_frames * out_height * out_width


def all_places(grid: Tensor) -> Tensor:
    """[B, T * H * W] the flat places of a grid [B, T, H, W, D], in order."""
    count = grid[0, ..., 0].numel()
    return torch.arange(count, device=grid.device).expand(len(grid), -1)


def precise(values: Tensor) -> Tensor:
    """Half precision as float32, other dtypes unchanged: the precision of norms and weights."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def fixed(weights: Tensor) -> Tensor:
    """Weights of tokens as numbers for forward differentiation, as in `carrying`; their gradient stays."""
    return forward_ad.unpack_dual(weights).primal
