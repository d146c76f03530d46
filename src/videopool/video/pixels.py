"""From decoded frames to pixels for a vision tower."""

from math import ceil, floor, sqrt
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RATIO = 200  # of two sides, at most
TOGETHER = 2  # frames of a clip that are counted together


def to_pixels(image_processor: Any, frames: np.ndarray, **options: Any) -> Tensor:
    """uint8 frames [T, H, W, 3] to normalised pixels [T, 3, S, S], with a transformers image processor."""
    return image_processor(images=list(frames), return_tensors="pt", **options)["pixel_values"]


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


class Unresizable(ValueError):
    """Frames whose sides differ too much to be resized."""


class Proportional:
    """An image processor that resizes frames to sides that are multiples of `unit`, close to their proportions.

    Each frame has at least `least` and at most `most` pixels; with `whole` these are the pixels of all frames of a
    clip, whose number it is told. As `smart_resize` of transformers' Qwen2VLVideoProcessor and Qwen3VLVideoProcessor.
    """

    def __init__(self, image_processor: Any, unit: int, least: int, most: int, whole: bool = False) -> None:
        self.image_processor, self.unit, self.least, self.most, self.whole = image_processor, unit, least, most, whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "image_processor":  # pickle asks before it is set
            raise AttributeError(name)
        return getattr(self.image_processor, name)

    def __call__(self, images: list[np.ndarray], num_frames: int | None = None, **options: Any) -> Any:
        """Pixels of images of one size; `num_frames`: of their clip, if they are not all. Raises Unresizable."""
        height, width = images[0].shape[:2]
        height, width = self.sides(height, width, num_frames or len(images))
        return self.image_processor(images=images, size={"height": height, "width": width}, **options)

    def to_dict(self) -> dict[str, Any]:
        """The processor's settings and its own."""
        own = {name: getattr(self, name) for name in ("unit", "least", "most", "whole")}
        return {**self.image_processor.to_dict(), "proportional": own}

    def sides(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """Height and width of resized frames. Raises Unresizable."""
        unit, count, counted = self.unit, 1, 1
        if self.whole:
            count = max(frames, TOGETHER)
            counted = round(count / TOGETHER) * TOGETHER
            if min(height, width) < unit:
                scale = unit / min(height, width)
                height, width = int(height * scale), int(width * scale)
        if max(height, width) > RATIO * min(height, width):
            raise Unresizable(f"frames of {height} x {width} pixels: one side is over {RATIO} times the other")
        sides = [round(side / unit) * unit for side in (height, width)]
        if (pixels := counted * sides[0] * sides[1]) > self.most:
            shrink = sqrt(count * height * width / self.most)
            sides = [max(unit, floor(side / shrink / unit) * unit) for side in (height, width)]
        elif pixels < self.least:
            grow = sqrt(self.least / (count * height * width))
            sides = [ceil(side * grow / unit) * unit for side in (height, width)]
        return sides[0], sides[1]
