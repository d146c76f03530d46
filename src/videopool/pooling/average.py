"""Means over all of time, all of space, or both."""

from torch import Tensor

from videopool.pooling.base import GridPooling, PoolingContext, one_of

AXES = {"time": (1,), "space": (2, 3), "both": (1, 2, 3)}


class Average(GridPooling):
    """The mean over whole axes of the grid.

    Args:
        axis: "time" leaves H * W tokens, "space" leaves T, "both" leaves one.

    Raises:
        PoolingShapeError: no such axis.
    """

    def __init__(self, axis: str = "time") -> None:
        super().__init__()
        self.axis = one_of("axis", axis, tuple(AXES))

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return grid.mean(dim=AXES[self.axis], keepdim=True)

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        shape = [1 if axis in AXES[self.axis] else size for axis, size in enumerate((frames, height, width), start=1)]
        return shape[0], shape[1], shape[2]

    @property
    def label(self) -> str:
        return f"average {self.axis}"
