"""Scenes and clips as data: what can be drawn, which objects are where and when, and what happens to them.

Tracks, arrays over a clip's frames, describe it: questions are answered from them, and the renderer draws one frame
of them at a time. Coordinates are pixels, y grows downward.
"""

from dataclasses import dataclass

import numpy as np

IMAGE_SIZE = 96  # pixels, square
CLIP_FRAMES = 32
CLIP_FPS = 8
MAX_OBJECTS = 4

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40), "green": (50, 210, 70), "blue": (60, 100, 250), "yellow": (240, 220, 50),
    "purple": (190, 60, 210), "white": (245, 245, 245),
}  # fmt: skip
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "grass": (38, 84, 40), "sand": (150, 122, 84), "water": (36, 58, 104), "night": (24, 22, 30),
}  # fmt: skip
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

# Tasks that one frame can answer, and tasks that need several frames.
IMAGE_TASKS = (
    "existence", "object_count", "attribute_colour", "attribute_shape", "attribute_count", "scene",
    "location_horizontal", "location_vertical", "relation_horizontal", "relation_vertical",
)  # fmt: skip
TIME_TASKS = (
    "moving_direction", "moving_count", "moving_object", "event_order", "event_count", "state_change", "scene_change",
)  # fmt: skip
TASKS = IMAGE_TASKS + TIME_TASKS
# Clips with few objects and long motions, one event after another, for what a small model can learn about time.
EVENT_TASKS = (
    "existence", "attribute_colour", "attribute_shape", "scene", "location_horizontal", "location_vertical",
    "moving_direction", "appearance_order", "scene_change",
)  # fmt: skip
TASKS_OF = {"clips": TASKS, "images": IMAGE_TASKS, "events": EVENT_TASKS}  # by kind of split
BLINK_FRAMES = 3  # for which a blinking object hides
BLINK_SLOTS = (3, 10, 17, 24)  # frames at which a blink may start
GAP = 3.0  # least pixels between the outlines of any two objects, in every frame
LEAST_MOTION, LONG_MOTION = 44.0, 62.0  # least pixels that a moving object covers; at most it crosses the image
# An "appear" event: the first object leaves and the second comes around a frame of TURNS; the first comes and the
# second leaves within ENDS frames of the clip's ends.
TURNS, ENDS = (13, 20), 5


@dataclass
class Track:
    """One object over a clip of F frames."""

    shape: str
    colours: list[str]  # [F]
    x: np.ndarray  # [F] centre, pixels
    y: np.ndarray  # [F]
    radius: float
    visible: np.ndarray  # [F] bool
    direction: str | None = None  # of motion, None when still
    change_frame: int | None = None  # first frame in its second colour
    blinks: int = 0

    @property
    def colour(self) -> str:
        return self.colours[0]

    @property
    def stable(self) -> bool:
        """Visible in every frame, in one colour."""
        return self.change_frame is None and bool(self.visible.all())

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass
class Clip:
    """A scene over F frames; a still image is a clip of one frame."""

    tracks: list[Track]
    backgrounds: list[str]  # [F]
    texture_seed: int
    scene_frame: int | None = None  # first frame of the second background

    @property
    def frames(self) -> int:
        return len(self.backgrounds)

    @property
    def stable(self) -> list[Track]:
        """Objects that do not change or hide; their (colour, shape) pairs are unique in a clip."""
        return [track for track in self.tracks if track.stable]


def _pairs(rng: np.random.Generator, count: int, unique_shapes: bool, alike: bool = False) -> list[tuple[str, str]]:
    """Different (colour, shape) pairs. With unique_shapes all colours and shapes differ; with alike many agree."""
    if unique_shapes:
        shapes = rng.permutation(SHAPES)[:count]
        colours = rng.permutation(list(COLOURS))[:count]
        return [(str(c), str(s)) for c, s in zip(colours, shapes, strict=True)]
    # A repeated colour or shape in most scenes, so that counting by attribute means something.
    mode = rng.choice(["free", "colour", "shape"])
    repeated = int(rng.integers(1, count + 1))
    if alike:
        mode, repeated = rng.choice(["colour", "shape"]), max(repeated, min(count, 3))
    shared_colour, shared_shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count:
        colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
        if len(chosen) < repeated:
            colour = shared_colour if mode == "colour" else colour
            shape = shared_shape if mode == "shape" else shape
        if (colour, shape) not in chosen:
            chosen.append((colour, shape))
    return chosen


def _place(
    rng: np.random.Generator, placed: list[Track], radius: float, frames: int, direction: str | None, least: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Centres x, y [F] of a new object that never comes near the placed ones; None if no free place was found."""
    low, high = radius + 3, IMAGE_SIZE - radius - 3
    steps = np.linspace(0.0, 1.0, frames)
    for _ in range(60):
        x, y = rng.uniform(low, high, size=2)
        xs, ys = np.full(frames, x), np.full(frames, y)
        if direction is not None:
            dx, dy = DIRECTIONS[direction]
            distance = rng.uniform(min(least, high - low), high - low)
            start = rng.uniform(low, high - distance)
            line = start + distance * (steps if dx + dy > 0 else 1 - steps)
            xs, ys = (line, ys) if dx else (xs, line)
        if all((np.hypot(xs - o.x, ys - o.y) > radius + o.radius + GAP).all() for o in placed):
            return xs, ys
    return None


def _tracks(
    rng: np.random.Generator, pairs: list[tuple[str, str]], movers: int, frames: int, least: float = LEAST_MOTION
) -> list[Track] | None:
    """Tracks of objects in random order, the first ones moving; None if they found no place."""
    tracks: list[Track] = []
    for index, (colour, shape) in enumerate(pairs):
        direction = str(rng.choice(list(DIRECTIONS))) if index < movers else None
        radius = float(rng.uniform(8.5, 11.5))
        if (place := _place(rng, tracks, radius, frames, direction, least)) is None:
            return None
        tracks.append(Track(shape, [colour] * frames, *place, radius, np.ones(frames, bool), direction))
    return [tracks[i] for i in rng.permutation(len(tracks))]


def random_image(rng: np.random.Generator, max_objects: int = MAX_OBJECTS) -> Clip:
    """A still scene: a clip of one frame."""
    tracks = None
    while tracks is None:
        count = int(rng.integers(1, max_objects + 1))
        tracks = _tracks(rng, _pairs(rng, count, unique_shapes=bool(rng.random() < 0.3)), 0, 1)
    return Clip(tracks, [str(rng.choice(list(BACKGROUNDS)))], int(rng.integers(2**31)))


def _recolour(rng: np.random.Generator, tracks: list[Track], track: Track, frame: int) -> None:
    taken = {colour for other in tracks for colour in other.colours}
    new = str(rng.choice([colour for colour in COLOURS if colour not in taken]))
    track.colours[frame:] = [new] * (len(track.colours) - frame)
    track.change_frame = frame


def random_clip(
    rng: np.random.Generator, event: str, movers: int, objects: int, scene_change: bool, least: float = LEAST_MOTION
) -> Clip:
    """A clip with one kind of event.

    The event is "none"; "blink": up to two objects hide 1 to 4 times; "change": one object takes a new colour; "order":
    two objects do, one after the other; "appear": two objects are visible for a while, one after the other. `movers` of
    the objects move, each in one direction through the whole clip and over at least `least` pixels. With
    `scene_change`, the background changes once.
    """
    frames, tracks = CLIP_FRAMES, None
    while tracks is None:
        pairs = _pairs(rng, objects, unique_shapes=event != "none", alike=bool(rng.random() < 0.5))
        tracks = _tracks(rng, pairs, movers, frames, least)
    first = str(rng.choice(list(BACKGROUNDS)))
    clip = Clip(tracks, [first] * frames, int(rng.integers(2**31)))
    if scene_change:
        clip.scene_frame = int(rng.integers(11, 22))
        second = str(rng.choice([b for b in BACKGROUNDS if b != first]))
        clip.backgrounds = [first] * clip.scene_frame + [second] * (frames - clip.scene_frame)
    actors = [tracks[i] for i in rng.permutation(len(tracks))]
    if event == "blink":
        for track in actors[:2]:
            track.blinks = int(rng.integers(1, len(BLINK_SLOTS) + 1))
            for slot in rng.permutation(BLINK_SLOTS)[: track.blinks]:
                track.visible[slot : slot + BLINK_FRAMES] = False
    elif event == "change":
        _recolour(rng, tracks, actors[0], int(rng.integers(10, 23)))
    elif event == "order":
        _recolour(rng, tracks, actors[0], int(rng.integers(5, 13)))
        _recolour(rng, tracks, actors[1], int(rng.integers(19, 28)))
    elif event == "appear":
        turn, early, late = int(rng.integers(*TURNS)), int(rng.integers(ENDS)), int(rng.integers(ENDS))
        actors[0].visible[:early] = actors[0].visible[turn:] = False
        actors[1].visible[: turn + 1] = actors[1].visible[frames - late :] = False
    return clip
