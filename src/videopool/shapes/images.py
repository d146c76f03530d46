"""Single images with dense patch labels and text, made on the fly for pretraining and for held-out tests."""

from dataclasses import dataclass

import numpy as np

from videopool.shapes.questions import ASK, Question
from videopool.shapes.render import coverage, render_frame
from videopool.shapes.scene import Clip
from videopool.shapes.world import BACKGROUNDS, COLOURS, IMAGE_SIZE, IMAGE_TASKS, SHAPES

IGNORE = -100
OBJECT_SHARE = 0.25  # of a patch's area from which the patch belongs to an object
GROUND_SHARE = 0.05  # and up to which it belongs to the background; between the two it is not labelled


@dataclass
class PatchLabels:
    """What each patch shows, int64 [grid, grid], IGNORE where it shows no such thing."""

    shape: np.ndarray  # len(SHAPES) = background
    colour: np.ndarray  # len(COLOURS) = background
    scene: np.ndarray
    row: np.ndarray
    column: np.ndarray
    centre_row: np.ndarray  # patch row of the centre of the object that the patch belongs to
    centre_column: np.ndarray
    is_centre: np.ndarray  # 0 or 1, on objects

    NAMES = ("shape", "colour", "scene", "row", "column", "centre_row", "centre_column", "is_centre")


def label_sizes(grid: int) -> dict[str, int]:
    """Number of classes of each label."""
    return {
        "shape": len(SHAPES) + 1,
        "colour": len(COLOURS) + 1,
        "scene": len(BACKGROUNDS),
        "row": grid,
        "column": grid,
        "centre_row": grid,
        "centre_column": grid,
        "is_centre": 2,
    }


def patch_labels(image: Clip, patch: int) -> PatchLabels:
    """Labels of a still scene's patches of patch x patch pixels."""
    grid = IMAGE_SIZE // patch
    shares = np.zeros((len(image.tracks), grid, grid))
    for index, track in enumerate(image.tracks):
        alpha = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
        rows, columns, opacity = coverage(track, 0)
        alpha[rows, columns] = opacity
        shares[index] = alpha.reshape(grid, patch, grid, patch).mean(axis=(1, 3))
    owner, share = shares.argmax(axis=0), shares.max(axis=0)
    on_object, on_ground = share >= OBJECT_SHARE, share <= GROUND_SHARE

    def per_object(values: list[int], ground: int) -> np.ndarray:
        return np.where(on_object, np.array(values)[owner], np.where(on_ground, ground, IGNORE))

    centres = [(int(t.y[0] // patch), int(t.x[0] // patch)) for t in image.tracks]
    rows, columns = np.mgrid[:grid, :grid]
    centre_row, centre_column = (per_object([c[axis] for c in centres], IGNORE) for axis in (0, 1))
    is_centre = np.where(on_object, (centre_row == rows) & (centre_column == columns), IGNORE)
    return PatchLabels(
        per_object([SHAPES.index(t.shape) for t in image.tracks], len(SHAPES)),
        per_object([list(COLOURS).index(t.colour) for t in image.tracks], len(COLOURS)),
        np.full((grid, grid), list(BACKGROUNDS).index(image.backgrounds[0])),
        rows,
        columns,
        centre_row,
        centre_column,
        is_centre,
    )


def render_image(image: Clip, rng: np.random.Generator | None = None) -> np.ndarray:
    """uint8 [IMAGE_SIZE, IMAGE_SIZE, 3]. With rng, half of the time with a video's halved colour resolution."""
    pixels = render_frame(image, 0)
    if rng is None or rng.random() < 0.5:
        return pixels
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    half = IMAGE_SIZE // 2
    colour = (pixels - grey[..., None]).reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
    blurred = grey[..., None] + colour.repeat(2, axis=0).repeat(2, axis=1) + rng.integers(-2, 3, grey.shape)[..., None]
    return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)


def image_questions(image: Clip, rng: np.random.Generator, per_task: int = 1) -> list[Question]:
    """Up to per_task questions of every image task, their answers as even as the scene allows."""
    chosen: list[Question] = []
    for task in IMAGE_TASKS:
        by_answer: dict[str, list[Question]] = {}
        for question in ASK[task](image, rng):
            by_answer.setdefault(question.answer, []).append(question)
        for _ in range(per_task):
            if not by_answer:
                break
            answer = str(rng.choice(sorted(by_answer)))
            pool = by_answer[answer]
            chosen.append(pool.pop(int(rng.integers(len(pool)))))
            if not pool:
                del by_answer[answer]
    return chosen
