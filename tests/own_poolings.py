"""Poolings as a user writes them, outside the package."""

import numpy as np

from videopool.pooling import GridPooling, Pooling


class Strip(GridPooling):
    """Frames side by side in one image, which is then pooled as it is."""

    tiles = True

    def tile(self, frames):
        return np.concatenate(list(frames), axis=1)[None]

    def pool(self, grid, context=None):
        assert grid.shape[1] == 1
        return grid

    def out_shape(self, frames, height, width):
        return frames, height, width


class Told(GridPooling):
    """Needs what it is told to need, and looks whether it is there."""

    def __init__(self, fields):
        super().__init__()
        self.needs = frozenset(fields)

    def pool(self, grid, context=None):
        batch, frames, height, width, dim = grid.shape
        shapes = {
            "frame_times": (frames,),
            "cls": (batch, frames, dim),
            "text": (batch, dim),
            "thumbnail": (batch, height, width, dim),
        }
        for name, shape in shapes.items():
            value = getattr(context, name)
            assert (value is None) if name not in self.needs else (value.shape == shape), name
        return grid

    def out_shape(self, frames, height, width):
        return frames, height, width


class First(Pooling):
    """A thumbnail of its own: the first frame alone, and its tokens as all there is."""

    needs = frozenset({"thumbnail"})

    def shown(self, frames):
        return [0]

    def thumbnail(self, frames):
        return frames

    def forward(self, grid, context=None):
        return context.thumbnail.flatten(1, 2)

    def num_tokens(self, frames, height, width):
        return height * width
