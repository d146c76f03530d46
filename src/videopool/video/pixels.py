"""From decoded frames to pixels for a vision tower."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pixels(image_processor: Any, frames: np.ndarray) -> Tensor:
    """uint8 frames [T, H, W, 3] to normalised pixels [T, 3, S, S], with a transformers image processor."""
    return image_processor(images=list(frames), return_tensors="pt")["pixel_values"]


def from_pixels(image_processor: Any, pixels: Tensor) -> np.ndarray:
    """Normalised pixels [T, 3, S, S] back to colours [T, S, S, 3] in 0..1: the tower's input as a picture."""
    colours = pixels.float()
    if image_processor.do_normalize:
        std, mean = torch.tensor(image_processor.image_std), torch.tensor(image_processor.image_mean)
        colours = colours * std.view(3, 1, 1) + mean.view(3, 1, 1)
    if not image_processor.do_rescale:
        colours = colours / 255
    return colours.clamp(0, 1).movedim(1, -1).numpy()


class ShrunkFirst:
    """An image processor that resizes frames twice: PLLaVA's preprocessing (arXiv 2404.16994).

    First as `resize_crop_longshort` in models/pllava/processing_pllava.py of magic-research/PLLaVA: the long side is
    cut to `longest` pixels (640 there), but the short side keeps at least the processor's size; bicubic, in whole grey
    levels. Rounding may crop the last line of the long side. Then the processor resizes again.
    """

    def __init__(self, image_processor: Any, longest: int) -> None:
        self.image_processor, self.longest = image_processor, longest

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "image_processor":  # pickle asks before it is set
            raise AttributeError(name)
        return getattr(self.image_processor, name)

    def __call__(self, images: list[np.ndarray], **options: Any) -> Any:
        return self.image_processor(images=[self.shrunk(image) for image in images], **options)

    def to_dict(self) -> dict[str, Any]:
        """The processor's settings and `longest`."""
        return {**self.image_processor.to_dict(), "longest_first": self.longest}

    def shrunk(self, image: np.ndarray) -> np.ndarray:
        """A frame [h, w, 3] after the first resizing."""
        size, sides = self.image_processor.size, image.shape[:2]
        least = size["shortest_edge"] if size.get("shortest_edge") else size["height"]
        short, long = min(sides), max(sides)
        rate = long / short
        side = max(least, min(short, int(min(self.longest, long) / rate)))
        resized, kept = int(side * long / short), int(side * rate)
        upright = sides[0] > sides[1]
        wanted = (side, resized) if upright else (resized, side)  # width, height
        if wanted != (sides[1], sides[0]):
            image = np.asarray(Image.fromarray(image).resize(wanted, Image.Resampling.BICUBIC))
        return image[:kept] if upright else image[:, :kept]
