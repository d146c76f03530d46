"""A slow path of few frames in detail, then a fast path of all frames, coarse: SlowFast-LLaVA (arXiv 2407.15841).

`prepare_slowfast` in slowfast_llava/llava/model/llava_arch.py of apple/ml-slowfast-llava: frame i of the S slow
ones is frame floor(i * T / S), and slow tokens come before fast ones. Published: 50 frames of 24 x 24, ten of them
slow with pairs merged by their maximum, the fast ones averaged to 4 x 4: 10 * 288 + 50 * 16 = 3680 tokens.
"""

import torch
from torch import Tensor

from videopool.pooling.base import GridPooling, Pooling, PoolingContext, grid_to_grid, positive, untiled


class SlowFast(Pooling):
    """Tokens of the slow path, then tokens of the fast path.

    The reference finds the slow frames in float32, which for some numbers of them (never for ten) takes the frame
    before floor(i * T / S); and it repeats frames of a clip that has fewer than it asks for.

    Args:
        slow_frames: frames of the slow path; a clip with fewer gives all of them, each once.
        slow: pools the frames of the slow path.
        fast: pools all frames.

    Raises:
        PoolingShapeError: slow_frames is no positive integer.
        PoolingContractError: slow or fast is no grid pooling, or tiles.
    """

    def __init__(self, slow_frames: int, slow: GridPooling, fast: GridPooling) -> None:
        super().__init__()
        self.slow_frames = positive("slow_frames", slow_frames)
        self.slow = grid_to_grid("slow", slow)
        self.fast = grid_to_grid("fast", fast)
        self.needs = slow.needs | fast.needs
        for key, path in (("slow", slow), ("fast", fast)):
            untiled(key, path, "and the two paths need frames")

    def slow_indices(self, frames: int) -> list[int]:
        """Which of the frames the slow path reads."""
        count = min(self.slow_frames, frames)
        return [i * frames // count for i in range(count)]

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        chosen = self.slow_indices(grid.shape[1])
        slow = self.slow(grid[:, chosen], context.of_frames(chosen) if context else None)
        return torch.cat([slow, self.fast(grid, context)], dim=1)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        slow = self.slow.num_tokens(len(self.slow_indices(frames)), height, width)
        return slow + self.fast.num_tokens(frames, height, width)

    @property
    def label(self) -> str:
        return f"slowfast {self.slow_frames} {self.slow.label} + {self.fast.label}"

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        chosen = self.slow_indices(frames)
        return {
            "slow_frames": chosen,
            "slow": self.slow.windows(len(chosen), height, width),
            "fast": self.fast.windows(frames, height, width),
        }
