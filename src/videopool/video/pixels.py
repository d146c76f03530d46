"""From decoded frames to what a vision tower takes."""

from typing import Any

import numpy as np
import torch
from PIL import Image
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


class ShrunkFirst:
    """An image processor before which frames are resized: PLLaVA's preprocessing (arXiv 2404.16994).

    `resize_crop_longshort` in models/pllava/processing_pllava.py of magic-research/PLLaVA, for one clip: the long side
    becomes `longest` pixels where it has more, but the short side no fewer than the processor makes of it; bicubic, in
    whole grey levels. Rounding may cut the last line of the long side off. Then the processor resizes again.

    Args:
        image_processor: of transformers; gives all attributes but to_dict().
        longest: pixels of the long side; the reference has 640.
    """

    def __init__(self, image_processor: Any, longest: int) -> None:
        self.image_processor, self.longest = image_processor, longest

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "image_processor":  # as asked before there is one, by pickle
            raise AttributeError(name)
        return getattr(self.image_processor, name)

    def __call__(self, images: list[np.ndarray], **options: Any) -> Any:
        return self.image_processor(images=[self.shrunk(image) for image in images], **options)

    def to_dict(self) -> dict[str, Any]:
        """Settings: the processor's, and what is done before it."""
        return {**self.image_processor.to_dict(), "longest_first": self.longest}

    def shrunk(self, image: np.ndarray) -> np.ndarray:
        """A frame [h, w, 3] as the processor gets it."""
        size, sides = self.image_processor.size, image.shape[:2]
        least = size["shortest_edge"] if size.get("shortest_edge") else size["height"]
        short, long = min(sides), max(sides)
        rate = long / short
        made = max(least, min(short, int(min(self.longest, long) / rate)))
        resized, kept = int(made * long / short), int(made * rate)
        upright = sides[0] > sides[1]
        wanted = (made, resized) if upright else (resized, made)  # width, height
        if wanted != (sides[1], sides[0]):
            image = np.asarray(Image.fromarray(image).resize(wanted, Image.Resampling.BICUBIC))
        return image[:kept] if upright else image[:, :kept]
