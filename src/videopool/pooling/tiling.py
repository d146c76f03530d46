"""Images made of a clip's frames before the tower. Frames are uint8 [T, h, w, 3]."""

import math

import numpy as np
import torch
from torch.nn import functional


def tiled(frames: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """rows * cols frames [T, h, w, 3] as one image [1, rows * h, cols * w, 3], row after row."""
    _, height, width, channels = frames.shape
    tiles = frames.reshape(rows, cols, height, width, channels)
    return tiles.swapaxes(1, 2).reshape(1, rows * height, cols * width, channels)


def filled(frames: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """rows * cols frames as one square image [1, s, s, 3] without margins: each frame is stretched to its cell.

    No cell is smaller than a frame, so that only the image processor, which shrinks the image, loses detail.
    """
    _, height, width, _ = frames.shape
    step = math.lcm(rows, cols)
    side = -(-max(rows * height, cols * width) // step) * step
    size = (side // rows, side // cols)
    if size != (height, width):
        images = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1).float()
        images = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        frames = images.round().to(torch.uint8).movedim(1, -1).numpy()
    return tiled(frames, rows, cols)


def equidistant(count: int, frames: int) -> list[int]:
    """Indices of so many of the frames, evenly spread, with the first and the last."""
    return [round(place * (frames - 1) / max(1, count - 1)) for place in range(count)]
