"""Each frame's CLS token before its patches, as Video-LLaVA reads a video (arXiv 2311.10122).

Its video tower returns all tokens, `feature_select` of LanguageBindVideoTower in
videollava/model/multimodal_encoder/languagebind/__init__.py of PKU-YuanGroup/Video-LLaVA: with patches as they are,
8 frames of 16 x 16 give 8 * 257 = 2056 tokens.
"""

import numpy as np
import torch
from torch import Tensor

from videopool.pooling.adaptive import axis_windows, pool_axes
from videopool.pooling.base import (
    GridPooling,
    Pooling,
    PoolingContext,
    PoolingContractError,
    grid_to_grid,
    tiled_by,
)


class FrameCls(Pooling):
    """For each frame that is left: its CLS token, then its cells.

    Where the inner pooling changes the number of frames from T to T', the CLS tokens are averaged over the
    adaptive windows of T cells pooled to T', whatever the inner pooling does to the patches.

    Args:
        inner: pools the patches.

    Raises:
        PoolingContractError: inner is no grid pooling, or the context has no CLS tokens of the grid's size.
    """

    def __init__(self, inner: GridPooling) -> None:
        super().__init__()
        self.inner = grid_to_grid("inner", inner)
        self.needs = inner.needs | {"cls"}
        self.tiles = inner.tiles

    def tile(self, frames: np.ndarray) -> np.ndarray:
        """What the inner pooling makes of a clip's frames, where it tiles."""
        return tiled_by(self.inner, frames)

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        cls = context.cls if context else None
        if cls is None:
            raise PoolingContractError(
                "FrameCls needs the vision tower's CLS token of each frame. CLIP towers have one (LLaVA-1.5, "
                "LLaVA-NeXT, Video-LLaVA, the embedded model), SigLIP towers have none (LLaVA-OneVision)"
            )
        wanted = (*grid.shape[:2], grid.shape[-1])
        if cls.shape != wanted:
            raise PoolingContractError(f"FrameCls got CLS tokens {tuple(cls.shape)}, its grid needs {wanted}")
        cells = self.inner.pool(grid, context).flatten(2, 3)  # [B, T', H' * W', D]
        return torch.cat([pool_axes(cls, {1: cells.shape[1]}, "avg").unsqueeze(2), cells], dim=2).flatten(1, 2)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        out_frames, out_height, out_width = self.inner.out_shape(frames, height, width)
        return out_frames * (out_height * out_width + 1)

    @property
    def label(self) -> str:
        return f"cls + {self.inner.label}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        out_frames, _, _ = self.inner.out_shape(frames, height, width)
        return {"cls": axis_windows(frames, out_frames), "inner": self.inner.windows(frames, height, width)}
