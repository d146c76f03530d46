"""The recipe's language stages on a tower that stays as it is: a real one, say, too slow to see new images every step.

So many images are drawn once; the tower's features of them, float16 [H*W, Dv] each, are kept in files and read again.
Questions, captions, options and gaps are drawn anew in every step.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from videopool.benchmarks.prompts import Prompt
from videopool.files import whole
from videopool.runtime.progress import progress
from videopool.shapes.recipe import GRID, HELD_OUT_STREAM, TRAIN_STREAM, LanguageTask, Recipe, generator
from videopool.shapes.render import render_image
from videopool.shapes.scene import MAX_OBJECTS, Clip, random_image

TOGETHER = 50  # images in a file
AT_ONCE = 8  # images that the tower reads in one call: with 50, its activations leave a CPU's cache
SEED, PLACE = 0, 97  # of the images, whatever the recipe's seed: trainings share them, and their features

Encode = Callable[[np.ndarray], Tensor]  # uint8 frames [T, S, S, 3] to a tower's patches [T, H, W, Dv]


class KeptImages:
    """Images of a stream of random numbers, drawn by their place in it, and their features.

    `encode` is the tower's, `folder` has files of a tower of its own. Features that are there are not computed again.
    """

    def __init__(self, encode: Encode, folder: Path, stream: int, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        drawing = [generator(SEED, stream, PLACE, number) for number in range(count)]
        self.images = [random_image(rng) for rng in drawing]
        self.paths = [folder / f"{stream}-{first}.npy" for first in range(0, count, TOGETHER)]
        with progress(f"encode images {stream}", count, 0) as advance:
            for part, path in enumerate(self.paths):
                some = range(part * TOGETHER, min(count, (part + 1) * TOGETHER))
                if not path.exists():
                    frames = np.stack([render_image(self.images[number], drawing[number]) for number in some])
                    few = [encode(frames[first : first + AT_ONCE]) for first in range(0, len(frames), AT_ONCE)]
                    features = torch.cat(few).flatten(1, 2).to(torch.float16).cpu().numpy()
                    with whole(path) as unfinished, unfinished.open("wb") as file:
                        np.save(file, features)
                advance(len(some))
        self.files = [np.load(path, mmap_mode="r") for path in self.paths]
        self.place = {id(image): number for number, image in enumerate(self.images)}

    def of(self, images: list[Clip]) -> Tensor:
        """Features [B, H*W, Dv] of some of the images."""
        places = [divmod(self.place[id(image)], TOGETHER) for image in images]
        return torch.from_numpy(np.stack([self.files[file][row] for file, row in places])).float()


class KeptTask(LanguageTask):
    """LanguageTask on kept images, so many for training; checks have others."""

    def __init__(
        self, model: Any, tokenizer: Any, prompt: Prompt, recipe: Recipe, encode: Encode, folder: Path, images: int
    ) -> None:
        super().__init__(model, tokenizer, prompt, recipe)
        checked = max(recipe.check_images, recipe.final_images)
        counts = {True: (TRAIN_STREAM, images), False: (HELD_OUT_STREAM, checked)}
        self.kept = {key: KeptImages(encode, folder, *value) for key, value in counts.items()}
        self.few = [image for image in self.kept[True].images if len(image.tracks) <= 2]
        self.grid = int(self.kept[True].of(self.kept[True].images[:1]).shape[1] ** 0.5)

    def image(self, rng: np.random.Generator, number: int, max_objects: int = MAX_OBJECTS) -> Clip:
        if not self.training:
            return self.kept[False].images[number]
        images = self.few if max_objects < MAX_OBJECTS else self.kept[True].images
        return images[rng.integers(len(images))]

    def patch_features(self, tower: nn.Module, images: list[Clip], rng: np.random.Generator) -> Tensor:
        return self.kept[self.training].of(images).to(self.device)

    def dense_labels(self, images: list[Clip]) -> dict[str, Tensor]:
        """Those of the toy model's patch at the centre of each patch of this tower."""
        nearest = torch.arange(self.grid).add(0.5).mul(GRID / self.grid).long()
        labels = super().dense_labels(images)
        grids = {name: values.unflatten(1, (GRID, GRID)) for name, values in labels.items()}
        return {name: grid[:, nearest][:, :, nearest].flatten(1) for name, grid in grids.items()}
