"""Single images with dense patch labels and questions, drawn on the fly for pretraining and for held-out tests."""

import numpy as np

from videopool.shapes.questions import Question, ask
from videopool.shapes.render import coverage, render_frame
from videopool.shapes.scene import Clip
from videopool.shapes.world import BACKGROUNDS, COLOURS, IMAGE_SIZE, IMAGE_TASKS, SHAPES

IGNORE = -100  # as torch's cross_entropy has it
OBJECT_SHARE = 0.25  # least share of a patch's area that labels it as object
GROUND_SHARE = 0.05  # most share that labels it as background; patches between the two have no label


def label_sizes(grid: int) -> dict[str, int]:
    """Number of classes of each dense label; background is the last class of "shape" and "colour"."""
    places = dict.fromkeys(("row", "column", "centre_row", "centre_column"), grid)
    sizes = {"shape": len(SHAPES) + 1, "colour": len(COLOURS) + 1, "scene": len(BACKGROUNDS)}
    return {**sizes, **places, "is_centre": 2}


def patch_labels(image: Clip, patch: int) -> dict[str, np.ndarray]:
    """Labels of a still scene's patches (patch x patch pixels), by name as in label_sizes().

    Returns:
        int64 [grid, grid] each, IGNORE where a patch has no such label. `centre_row` and `centre_column` locate the
        centre of the patch's object; `is_centre` is labelled on objects only.
    """
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

    rows, columns = np.mgrid[:grid, :grid]
    centre_row = per_object([int(track.y[0] // patch) for track in image.tracks], IGNORE)
    centre_column = per_object([int(track.x[0] // patch) for track in image.tracks], IGNORE)
    return {
        "shape": per_object([SHAPES.index(track.shape) for track in image.tracks], len(SHAPES)),
        "colour": per_object([list(COLOURS).index(track.colour) for track in image.tracks], len(COLOURS)),
        "scene": np.full((grid, grid), list(BACKGROUNDS).index(image.backgrounds[0])),
        "row": rows,
        "column": columns,
        "centre_row": centre_row,
        "centre_column": centre_column,
        "is_centre": np.where(on_object, (centre_row == rows) & (centre_column == columns), IGNORE),
    }


def render_image(image: Clip, rng: np.random.Generator | None = None) -> np.ndarray:
    """uint8 [IMAGE_SIZE, IMAGE_SIZE, 3]. With rng, every second image has a video's halved colour resolution."""
    pixels = render_frame(image, 0)
    if rng is None or rng.random() < 0.5:
        return pixels
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    half = IMAGE_SIZE // 2
    colour = (pixels - grey[..., None]).reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
    blurred = grey[..., None] + colour.repeat(2, axis=0).repeat(2, axis=1) + rng.integers(-2, 3, grey.shape)[..., None]
    return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)


def image_questions(image: Clip, rng: np.random.Generator) -> list[Question]:
    """Up to one question per image task; the answer is drawn first, then a question with it."""
    chosen = []
    for task in IMAGE_TASKS:
        by_answer: dict[str, list[Question]] = {}
        for question in ask(task, image, rng):
            by_answer.setdefault(question.answer, []).append(question)
        if by_answer:
            pool = by_answer[str(rng.choice(sorted(by_answer)))]
            chosen.append(pool[int(rng.integers(len(pool)))])
    return chosen
