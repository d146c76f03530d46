"""From decoded frames to what a vision tower takes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_pixels(image_processor: Any, frames: np.ndarray) -> Tensor:
    """uint8 frames [T, H, W, 3] to normalised pixels [T, 3, S, S], by a transformers image processor."""
    return image_processor(images=list(frames), return_tensors="pt")["pixel_values"]


def from_pixels(image_processor: Any, pixels: Tensor) -> np.ndarray:
    """Normalised pixels [T, 3, S, S] back to colours [T, S, S, 3] in 0..1: what the tower was shown, to look at."""
    colours = pixels.float()
    if image_processor.do_normalize:
        mean, std = (
            torch.tensor(values).view(3, 1, 1) for values in (image_processor.image_mean, image_processor.image_std)
        )
        colours = colours * std + mean
    if not image_processor.do_rescale:
        colours = colours / 255
    return colours.clamp(0, 1).movedim(1, -1).numpy()
