"""Frames in numpy: anti-aliased shapes on a softly textured ground; and single images with dense patch labels."""

from functools import lru_cache

import numpy as np

from videopool.shapes.scene import BACKGROUNDS, COLOURS, IMAGE_SIZE, SHAPES, Clip, Track

TEXTURE_CELLS = 12
TEXTURE_AMPLITUDE = 9.0  # grey levels
IGNORE = -100  # as torch's cross_entropy has it
OBJECT_SHARE = 0.25  # least share of a patch's area that labels it as object
GROUND_SHARE = 0.05  # most share that labels it as background; patches between the two have no label


def _polygon_radius(angle: np.ndarray, corners: int, outer: float, inner: float) -> np.ndarray:
    """Distance from the centre to the outline of a star polygon whose corners alternate outer, inner."""
    half = np.pi / corners
    phi = np.abs((angle + half) % (2 * half) - half)
    return outer * inner * np.sin(half) / (outer * np.sin(phi) + inner * np.sin(half - phi))


def coverage(track: Track, frame: int) -> tuple[slice, slice, np.ndarray]:
    """Rows, columns and opacity [h, w] in 0..1 of an object's bounding box in a frame."""
    return _covered(track.shape, float(track.x[frame]), float(track.y[frame]), track.radius)


@lru_cache(8)  # more than a clip has objects: those at rest are drawn once
def _covered(shape: str, cx: float, cy: float, r: float) -> tuple[slice, slice, np.ndarray]:
    reach = int(np.ceil(r * 1.3)) + 1
    top, bottom = max(0, int(cy) - reach), min(IMAGE_SIZE, int(cy) + reach + 1)
    left, right = max(0, int(cx) - reach), min(IMAGE_SIZE, int(cx) + reach + 1)
    dy = np.arange(top, bottom)[:, None] + 0.5 - cy
    dx = np.arange(left, right)[None, :] + 0.5 - cx
    distance = np.hypot(dx, dy)
    if shape == "circle":
        outside = distance - r
    elif shape == "square":
        outside = np.maximum(np.abs(dx), np.abs(dy)) - 0.86 * r
    elif shape == "cross":
        upright = np.maximum(np.abs(dx) - 0.34 * r, np.abs(dy) - r)
        level = np.maximum(np.abs(dx) - r, np.abs(dy) - 0.34 * r)
        outside = np.minimum(upright, level)
    else:
        corners, outer, ratio = {"triangle": (3, 1.22 * r, 0.5), "star": (5, 1.15 * r, 0.42)}[shape]
        outside = distance - _polygon_radius(np.arctan2(dx, -dy), corners, outer, ratio * outer)
    return slice(top, bottom), slice(left, right), np.clip(0.5 - outside, 0.0, 1.0)


def texture(seed: int) -> np.ndarray:
    """Smooth noise [IMAGE_SIZE, IMAGE_SIZE] in about -1..1, bilinear between TEXTURE_CELLS cells per side."""
    cells = np.random.default_rng(seed).uniform(-1, 1, size=(TEXTURE_CELLS + 1, TEXTURE_CELLS + 1))
    position = (np.arange(IMAGE_SIZE) + 0.5) * TEXTURE_CELLS / IMAGE_SIZE
    low = position.astype(int)
    part = position - low
    rows = cells[low] * (1 - part)[:, None] + cells[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


@lru_cache(2)  # a clip's, before and after the scene changes
def _ground(background: str, seed: int) -> np.ndarray:
    return np.array(BACKGROUNDS[background], float) + TEXTURE_AMPLITUDE * texture(seed)[..., None]


def render_frame(clip: Clip, frame: int) -> np.ndarray:
    """One frame, uint8 [IMAGE_SIZE, IMAGE_SIZE, 3]."""
    image = _ground(clip.backgrounds[frame], clip.texture_seed).copy()
    for track in clip.tracks:
        if track.visible[frame]:
            rows, columns, alpha = coverage(track, frame)
            box = image[rows, columns]
            box += alpha[..., None] * (np.array(COLOURS[track.colours[frame]], float) - box)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def render_clip(clip: Clip) -> np.ndarray:
    """All frames, uint8 [F, IMAGE_SIZE, IMAGE_SIZE, 3]."""
    return np.stack([render_frame(clip, frame) for frame in range(clip.frames)])


def label_sizes(grid: int) -> dict[str, int]:
    """Number of classes of each dense label; background is the last class of "shape" and "colour"."""
    places = dict.fromkeys(("row", "column", "centre_row", "centre_column"), grid)
    sizes = {"shape": len(SHAPES) + 1, "colour": len(COLOURS) + 1, "scene": len(BACKGROUNDS)}
    return {**sizes, **places, "is_centre": 2}


def patch_labels(image: Clip, patch: int) -> dict[str, np.ndarray]:
    """Labels of a still scene's patches (patch x patch pixels), by name as in label_sizes().

    Each is int64 [grid, grid], IGNORE where a patch has no such label. `centre_row` and `centre_column` locate the
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
