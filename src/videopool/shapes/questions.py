"""Questions about a scene or a clip, with their answers and wrong options.

A question that one frame can answer is asked only if its answer is the same in every frame. Every
template is symmetric in colours, shapes and sides, so that the words of a question do not betray its
answer; what symmetry cannot give (counts, yes and no) the caller balances with `balanced`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from videopool.shapes.scene import Clip, Track
from videopool.shapes.world import BACKGROUNDS, COLOURS, DIRECTIONS, IMAGE_SIZE, SHAPES

SIDE_MARGIN = 8.0  # pixels from the middle at which an object is on a side
RELATION_MARGIN = 14.0  # pixels between two centres at which one is beside the other


@dataclass(frozen=True)
class Question:
    """One question with its options."""

    task: str
    text: str
    answer: str
    options: tuple[str, ...]  # the answer among them, in no meaningful order


def _options(rng: np.random.Generator, answer: str, pool: Iterable[str], count: int = 4) -> tuple[str, ...]:
    others = [word for word in pool if word != answer]
    wrong = [others[i] for i in rng.permutation(len(others))[: count - 1]]
    mixed = [answer, *wrong]
    return tuple(mixed[i] for i in rng.permutation(len(mixed)))


def _ask(rng: np.random.Generator, task: str, text: str, answer: str, pool: Iterable[str]) -> Question:
    return Question(task, text, answer, _options(rng, answer, pool))


def _side(values: np.ndarray, low: str, high: str) -> str | None:
    """Which half a track stays in, or None."""
    middle = IMAGE_SIZE / 2
    if np.all(values < middle - SIDE_MARGIN):
        return low
    return high if np.all(values > middle + SIDE_MARGIN) else None


def _relation(first: np.ndarray, second: np.ndarray, low: str, high: str) -> str | None:
    if np.all(first < second - RELATION_MARGIN):
        return low
    return high if np.all(first > second + RELATION_MARGIN) else None


def _by_name(clip: Clip) -> list[Track]:
    """Stable objects; their (colour, shape) pairs are unique in a clip."""
    return [track for track in clip.tracks if track.stable]


def existence(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """Is there an object of this colour and shape?"""
    present = [track.name for track in _by_name(clip)]
    ever = {f"{colour} {track.shape}" for track in clip.tracks for colour in track.colours}
    absent = [f"{c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in ever]
    # Half of the absent ones differ from a present one in one word only.
    near = [a for a in absent if any(set(a.split()) & set(p.split()) for p in present)]
    absent_name = str(rng.choice(near if near and rng.random() < 0.5 else absent))
    asked = [(name, "yes") for name in present] + [(absent_name, "no")]
    return [_ask(rng, "existence", f"is there any {name} ?", answer, ("yes", "no")) for name, answer in asked]


def object_count(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """How many objects are there?"""
    if not all(track.visible.all() for track in clip.tracks):
        return []
    return [_ask(rng, "object_count", "how many objects are there ?", str(len(clip.tracks)), "1234")]


def attribute_colour(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """What colour is the object of this shape?"""
    shapes = [track.shape for track in clip.tracks]
    return [
        _ask(rng, "attribute_colour", f"what colour is the {track.shape} ?", track.colour, COLOURS)
        for track in _by_name(clip)
        if shapes.count(track.shape) == 1
    ]


def attribute_shape(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """What shape is the object of this colour?"""
    colours = [colour for track in clip.tracks for colour in set(track.colours)]
    return [
        _ask(rng, "attribute_shape", f"what shape is the {track.colour} object ?", track.shape, SHAPES)
        for track in _by_name(clip)
        if colours.count(track.colour) == 1
    ]


def attribute_count(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """How many objects have this colour or shape?"""
    if any(not track.stable for track in clip.tracks):
        return []
    questions = []
    for attribute, pool in (("colour", list(COLOURS)), ("shape", list(SHAPES))):
        for value in rng.permutation(pool):
            count = sum(getattr(track, attribute) == value for track in clip.tracks)
            phrase = f"{value} objects" if attribute == "colour" else f"{value} shapes"
            if count <= 3:
                questions.append(_ask(rng, "attribute_count", f"how many {phrase} are there ?", str(count), "0123"))
    return questions


def scene(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """What is the background?"""
    if clip.scene_frame is not None:
        return []
    return [_ask(rng, "scene", "what is the background ?", clip.backgrounds[0], BACKGROUNDS)]


def _location(task: str, axis: str, low: str, high: str) -> Callable[[Clip, np.random.Generator], list[Question]]:
    def ask(clip: Clip, rng: np.random.Generator) -> list[Question]:
        sides = [(track, _side(getattr(track, axis), low, high)) for track in _by_name(clip)]
        return [
            _ask(rng, task, f"is the {track.name} at the {low} or at the {high} ?", side, (low, high))
            for track, side in sides
            if side is not None
        ]

    return ask


def _relations(
    task: str, axis: str, low: str, high: str, link: str
) -> Callable[[Clip, np.random.Generator], list[Question]]:
    def ask(clip: Clip, rng: np.random.Generator) -> list[Question]:
        questions = []
        named = _by_name(clip)
        for first in named:
            for second in named:
                side = None if first is second else _relation(getattr(first, axis), getattr(second, axis), low, high)
                if side is not None:
                    text = f"is the {first.name} {low} or {high} {link} {second.name} ?"
                    questions.append(_ask(rng, task, text, side, (low, high)))
        return questions

    return ask


def moving_direction(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """Where does the object of this shape move?"""
    return [
        _ask(rng, "moving_direction", f"where does the {track.shape} move ?", track.direction, DIRECTIONS)
        for track in clip.tracks
        if track.direction is not None and [t.shape for t in clip.tracks].count(track.shape) == 1
    ]


def moving_count(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """How many objects move?"""
    count = sum(track.direction is not None for track in clip.tracks)
    return [_ask(rng, "moving_count", "how many objects move ?", str(count), "0123")]


def _which(task: str, text: str, track: Track, among: list[Track], rng: np.random.Generator) -> list[Question]:
    """Which of the objects: all objects of the clip are options, so one frame rules none of them out."""
    shapes = [t.shape for t in among]
    if len(shapes) < 2 or len(set(shapes)) < len(shapes):
        return []
    return [_ask(rng, task, text, track.shape, shapes)]


def moving_object(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """Which object moves, or moves in this direction?"""
    movers = [track for track in clip.tracks if track.direction is not None]
    if len(movers) == 1:
        return _which("moving_object", "which object moves ?", movers[0], clip.tracks, rng)
    questions = []
    for direction in DIRECTIONS:
        heading = [track for track in movers if track.direction == direction]
        if len(heading) == 1:
            questions += _which("moving_object", f"which object moves {direction} ?", heading[0], clip.tracks, rng)
    return questions


def event_order(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """Which object changes colour first, or last?"""
    changed = sorted((t for t in clip.tracks if t.change_frame is not None), key=lambda t: t.change_frame or 0)
    if len(changed) != 2:
        return []
    return _which("event_order", "which object changes colour first ?", changed[0], changed, rng) + _which(
        "event_order", "which object changes colour last ?", changed[1], changed, rng
    )


def appearance_order(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """In which order do the two objects appear that are there for a while?"""
    shown = sorted(
        (t for t in clip.tracks if not t.blinks and not t.visible.all()), key=lambda t: int(t.visible.argmax())
    )
    if len(shown) != 2 or shown[0].shape == shown[1].shape:
        return []
    orders = [f"{a.shape} then {b.shape}" for a, b in (shown, shown[::-1])]
    return [_ask(rng, "appearance_order", "which object appears first , which next ?", orders[0], orders)]


def event_count(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """How many times does the object of this shape blink?"""
    return [
        _ask(rng, "event_count", f"how many times does the {track.shape} blink ?", str(track.blinks), "1234")
        for track in clip.tracks
        if track.blinks
    ]


def state_change(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """Which object changes colour, and from or to which one?"""
    changed = [track for track in clip.tracks if track.change_frame is not None]
    if len(changed) != 1:
        return []
    (track,) = changed
    which = _which("state_change", "which object changes colour ?", track, clip.tracks, rng)
    # Both of its colours are options: knowing one frame leaves two of the four.
    pool = [c for c in COLOURS if c not in (track.colours[0], track.colours[-1])]
    before, after = track.colours[0], track.colours[-1]
    mixed = [before, after, *(pool[i] for i in rng.permutation(len(pool))[:2])]
    turns = (("become", after), ("have first", before))
    for text, answer in turns:
        options = tuple(mixed[i] for i in rng.permutation(4))
        which.append(Question("state_change", f"what colour does the {track.shape} {text} ?", answer, options))
    return which


def scene_change(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """How does the background change?"""
    if clip.scene_frame is None:
        return []
    before, after = clip.backgrounds[0], clip.backgrounds[-1]
    rest = [b for b in BACKGROUNDS if b not in (before, after)]
    # Two pairs, each in both orders: nothing in the list of options sets the right one apart.
    pairs = [(before, after), (after, before), (rest[0], rest[1]), (rest[1], rest[0])]
    options = tuple(f"{a} to {b}" for a, b in (pairs[i] for i in rng.permutation(4)))
    return [Question("scene_change", "how does the background change ?", f"{before} to {after}", options)]


ASK: dict[str, Callable[[Clip, np.random.Generator], list[Question]]] = {
    "existence": existence,
    "object_count": object_count,
    "attribute_colour": attribute_colour,
    "attribute_shape": attribute_shape,
    "attribute_count": attribute_count,
    "scene": scene,
    "location_horizontal": _location("location_horizontal", "x", "left", "right"),
    "location_vertical": _location("location_vertical", "y", "top", "bottom"),
    "relation_horizontal": _relations("relation_horizontal", "x", "left", "right", "of the"),
    "relation_vertical": _relations("relation_vertical", "y", "above", "below", "the"),
    "moving_direction": moving_direction,
    "moving_count": moving_count,
    "moving_object": moving_object,
    "event_order": event_order,
    "event_count": event_count,
    "appearance_order": appearance_order,
    "state_change": state_change,
    "scene_change": scene_change,
}


def caption(clip: Clip) -> str:
    """A still scene in words: how many objects, on what, and each with its place, from left to right."""
    parts = [f"{len(clip.tracks)} objects on {clip.backgrounds[0]} ."]
    for track in sorted(clip.tracks, key=lambda t: float(t.x[0])):
        across = "left" if track.x[0] < IMAGE_SIZE / 2 else "right"
        height = "top" if track.y[0] < IMAGE_SIZE / 2 else "bottom"
        parts.append(f"{track.name} at {height} {across} .")
    return " ".join(parts)
