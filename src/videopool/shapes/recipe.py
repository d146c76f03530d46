"""The settings of the toy model's recipe, and its random streams."""

import math
from dataclasses import dataclass

import numpy as np

TRAIN_STREAM, HELD_OUT_STREAM = 1, 2  # first number of every seed: the two never share a scene


@dataclass(frozen=True)
class RecipeStage:
    """One stage's schedule.

    Args:
        steps: length of the schedule.
        images: per step.
        rate: peak learning rate.
        stop: steps after which the stage ends, before its schedule does; None for the whole schedule.
    """

    steps: int
    images: int
    rate: float
    warmup: int = 100
    weight_decay: float = 0.05
    stop: int | None = None

    @property
    def length(self) -> int:
        """Number of steps taken."""
        return self.stop or self.steps

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, from 0: a linear warm-up, then a cosine down to 2 % of the peak."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.02 + 0.49 * (1 + math.cos(math.pi * part)))


@dataclass(frozen=True)
class Recipe:
    """All settings that determine the weights.

    Args:
        check_images, final_images: held-out images, during training (nothing is chosen on them) and at its end.
        tower, language, letters: the three stages. The last asks mostly for letters, with wrong options that are
            right for other objects of the image, and repeats the tasks that are learned last.
        letter_share: of questions with options, answered by a letter, in the language stage after its first quarter.
        max_gap: most positions left out between visual tokens and text, in half of the images (a fifth in the first
            quarter), so that text far after many visual tokens is no surprise.
        auxiliary: weight of the loss by which an object's projected tokens predict the words for it.
    """

    tower: RecipeStage
    language: RecipeStage
    letters: RecipeStage
    seed: int = 0
    letter_share: float = 0.6
    max_gap: int = 2300
    auxiliary: float = 0.15
    log_every: int = 25
    check_every: int = 250
    check_images: int = 160
    final_images: int = 600


def generator(seed: int, stream: int, *place: int) -> np.random.Generator:
    """The random numbers of one place in one stream."""
    return np.random.default_rng([stream, seed, *place])
