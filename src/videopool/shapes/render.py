"""Frames of the synthetic benchmark in numpy: anti-aliased shapes on a softly textured ground."""

import numpy as np

from videopool.shapes.scene import Clip, Track
from videopool.shapes.world import BACKGROUNDS, COLOURS, IMAGE_SIZE

TEXTURE_CELLS = 12
TEXTURE_AMPLITUDE = 9.0  # grey levels


def _polygon_radius(angle: np.ndarray, corners: int, outer: float, inner: float) -> np.ndarray:
    """Distance from the centre to the outline of a star polygon whose corners alternate outer, inner."""
    half = np.pi / corners
    phi = np.abs((angle + half) % (2 * half) - half)
    return outer * inner * np.sin(half) / (outer * np.sin(phi) + inner * np.sin(half - phi))


def coverage(track: Track, frame: int) -> tuple[slice, slice, np.ndarray]:
    """Rows, columns and opacity [h, w] in 0..1 of an object's bounding box in a frame."""
    cx, cy, r = float(track.x[frame]), float(track.y[frame]), track.radius
    reach = int(np.ceil(r * 1.3)) + 1
    top, bottom = max(0, int(cy) - reach), min(IMAGE_SIZE, int(cy) + reach + 1)
    left, right = max(0, int(cx) - reach), min(IMAGE_SIZE, int(cx) + reach + 1)
    dy = np.arange(top, bottom)[:, None] + 0.5 - cy
    dx = np.arange(left, right)[None, :] + 0.5 - cx
    distance = np.hypot(dx, dy)
    if track.shape == "circle":
        outside = distance - r
    elif track.shape == "square":
        outside = np.maximum(np.abs(dx), np.abs(dy)) - 0.86 * r
    elif track.shape == "cross":
        upright = np.maximum(np.abs(dx) - 0.34 * r, np.abs(dy) - r)
        level = np.maximum(np.abs(dx) - r, np.abs(dy) - 0.34 * r)
        outside = np.minimum(upright, level)
    else:
        corners, outer, ratio = {"triangle": (3, 1.22 * r, 0.5), "star": (5, 1.15 * r, 0.42)}[track.shape]
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


def render_frame(clip: Clip, frame: int, ground: np.ndarray | None = None) -> np.ndarray:
    """One frame, uint8 [IMAGE_SIZE, IMAGE_SIZE, 3]. ground: the clip's texture, shared between frames."""
    ground = texture(clip.texture_seed) if ground is None else ground
    image = np.array(BACKGROUNDS[clip.backgrounds[frame]], float) + TEXTURE_AMPLITUDE * ground[..., None]
    for track in clip.tracks:
        if track.visible[frame]:
            rows, columns, alpha = coverage(track, frame)
            box = image[rows, columns]
            box += alpha[..., None] * (np.array(COLOURS[track.colours[frame]], float) - box)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def render_clip(clip: Clip) -> np.ndarray:
    """All frames, uint8 [F, IMAGE_SIZE, IMAGE_SIZE, 3]."""
    ground = texture(clip.texture_seed)
    return np.stack([render_frame(clip, frame, ground) for frame in range(clip.frames)])
