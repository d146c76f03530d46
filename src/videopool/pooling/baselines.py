"""Baselines: every patch, no token, and means over whole axes."""

import torch
from torch import Tensor

from videopool.pooling.base import GridPooling, Pooling, PoolingContext, all_places
from videopool.pooling.checks import one_of
from videopool.pooling.intervention import Intervention

AXES = {"time": (1,), "space": (2, 3), "both": (1, 2, 3)}


class NoPooling(Intervention):
    """The grid unchanged ("n-frame"): T * H * W tokens."""

    _label = "none"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid

    def token_places(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return all_places(grid)


class Blind(Pooling):
    """The blind control, no visual tokens: [B, T, H, W, D] -> [B, 0, D].

    Its score is what the question's words alone are worth (arXiv 1505.00468, "language alone"). Tokens that a family
    writes after the visual tokens, such as LLaVA-OneVision's newline, remain.
    """

    blind = True
    _label = "blind"

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid.flatten(1, 3)[:, :0]  # a part of the grid, so that gradients are zero, not missing

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return 0

    def token_places(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return all_places(grid)[:, :0]


class Average(GridPooling):
    """The mean over whole axes of the grid: "time" leaves H * W tokens, "space" leaves T, "both" leaves one."""

    def __init__(self, axis: str = "time") -> None:
        super().__init__()
        self.axis = one_of("axis", axis, tuple(AXES))
        self._label = f"average {axis}"

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid.mean(dim=AXES[self.axis], keepdim=True)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        space = (height, width) if self.axis == "time" else (1, 1)
        return frames if self.axis == "space" else 1, *space


class DualMean(Pooling):
    """T means over space, then H * W means over time: Video-ChatGPT (arXiv 2306.05424).

    `get_spatio_temporal_features_torch` in video_chatgpt/inference.py of mbzuai-oryx/Video-ChatGPT, before the
    projector: 100 frames of 16 x 16 give 100 + 256 = 356 tokens. The reference pads a clip of fewer than 100 frames
    with zero tokens after its frames; here it gives one token per frame.
    """

    _label = "dual mean"

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return torch.cat([grid.mean(dim=(2, 3)), grid.mean(dim=1).flatten(1, 2)], dim=1)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return frames + height * width
