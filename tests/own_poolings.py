"""Poolings as a user writes them, outside the package."""

import numpy as np
import torch

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
            "saliency": (batch, frames, height, width),
            "keys": (batch, frames, height, width, None),
            "frame_vectors": (batch, frames, None),
        }
        for name, shape in shapes.items():
            value = getattr(context, name)
            if name not in self.needs:
                assert value is None, name
                continue
            assert all(size in (None, own) for size, own in zip(shape, value.shape, strict=True)), name
        return grid

    def out_shape(self, frames, height, width):
        return frames, height, width


class Salient(Pooling):
    """The patches of most attention in the tower, so many of each clip, and which attention that is."""

    needs = frozenset({"saliency", "keys"})

    def __init__(self, tokens=8, saliency=None, block=None, one_head=False):
        super().__init__()
        self.tokens, self.saliency, self.block, self.one_head = tokens, saliency, block, one_head
        self._label = f"salient {tokens} {saliency} {block} {one_head}"

    def forward(self, grid, context=None):
        assert context.keys.shape[:4] == grid.shape[:4]
        assert context.saliency.dtype in (torch.float32, torch.float64)
        chosen = context.saliency.flatten(1).argsort(dim=1, descending=True, stable=True)[:, : self.tokens].sort(1)[0]
        return grid.flatten(1, 3).take_along_dim(chosen.unsqueeze(-1), dim=1)

    def num_tokens(self, frames, height, width):
        return min(self.tokens, frames * height * width)


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
