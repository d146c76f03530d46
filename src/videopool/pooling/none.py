"""No pooling: every patch of every frame is a visual token ("n-frame")."""

from torch import Tensor

from videopool.pooling.base import GridPooling, PoolingContext


class NoPooling(GridPooling):
    """The grid as it is: T * H * W tokens."""

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, width

    @property
    def label(self) -> str:
        return "none"
