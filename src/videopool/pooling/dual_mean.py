"""The mean of every frame, then the mean of every position: Video-ChatGPT (arXiv 2306.05424).

`get_spatio_temporal_features_torch` in video_chatgpt/inference.py of mbzuai-oryx/Video-ChatGPT: tokens of the frames
first, then those of the positions, before the projector. 100 frames of 16 x 16 give 100 + 256 = 356 tokens. The
reference adds zero tokens after the frames of a clip that has fewer than 100; here it gives as many as it has frames.
"""

import torch
from torch import Tensor

from videopool.pooling.base import Pooling, PoolingContext


class DualMean(Pooling):
    """T means over space, then H * W means over time."""

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return torch.cat([grid.mean(dim=(2, 3)), grid.mean(dim=1).flatten(1, 2)], dim=1)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        return frames + height * width

    @property
    def label(self) -> str:
        return "dual mean"
