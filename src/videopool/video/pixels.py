"""From decoded frames to what a vision tower takes."""

from typing import Any

import numpy as np
from torch import Tensor


def to_pixels(image_processor: Any, frames: np.ndarray) -> Tensor:
    """uint8 frames [T, H, W, 3] to normalised pixels [T, 3, S, S], by a transformers image processor."""
    return image_processor(images=list(frames), return_tensors="pt")["pixel_values"]
