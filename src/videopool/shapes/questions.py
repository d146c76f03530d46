"""Questions about a scene or a clip, with their answers and wrong options.

A question that one frame can answer is asked only if its answer is the same in every frame. Every template is
symmetric in colours, shapes and sides, so that the words of a question do not give its answer away. The caller
balances what symmetry cannot (counts, yes and no), see `clips.balanced`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import numpy as np

from videopool.shapes.scene import BACKGROUNDS, COLOURS, DIRECTIONS, IMAGE_SIZE, IMAGE_TASKS, SHAPES, Clip, Track

SIDE_MARGIN = 8.0  # pixels: the least distance of an object on a side from the middle
RELATION_MARGIN = 14.0  # pixels: the least distance between the centres of two objects beside each other

Parts = tuple[str, str, tuple[str, ...]]  # of a question: text, answer, options
Ask = Callable[[Clip, np.random.Generator], Iterator[Parts]]


@dataclass(frozen=True)
class Question:
    """One question with its options."""

    task: str
    text: str
    answer: str
    options: tuple[str, ...]  # the answer among them, in random order


def ask(task: str, clip: Clip, rng: np.random.Generator) -> list[Question]:
    """All questions of one task about a clip."""
    return [Question(task, *parts) for parts in ASK[task](clip, rng)]


def mixed(options: list[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Options in random order."""
    return tuple(options[i] for i in rng.permutation(len(options)))


def _parts(rng: np.random.Generator, text: str, answer: str, pool: Iterable[str]) -> Parts:
    """A question with up to three wrong options from a pool."""
    others = [word for word in pool if word != answer]
    wrong = [others[i] for i in rng.permutation(len(others))[:3]]
    return text, answer, mixed([answer, *wrong], rng)


def _side(values: np.ndarray, border: np.ndarray | float, margin: float, sides: tuple[str, str]) -> str | None:
    """The side of a border on which coordinates stay in all frames, or None."""
    if np.all(values < border - margin):
        return sides[0]
    return sides[1] if np.all(values > border + margin) else None


def existence(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """Is there an object of this colour and shape?"""
    present = [track.name for track in clip.stable]
    ever = {f"{colour} {track.shape}" for track in clip.tracks for colour in track.colours}
    absent = [f"{c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in ever]
    # Half of the absent ones differ from a present one in one word only.
    near = [a for a in absent if any(set(a.split()) & set(p.split()) for p in present)]
    absent_name = str(rng.choice(near if near and rng.random() < 0.5 else absent))
    for name, answer in [*((name, "yes") for name in present), (absent_name, "no")]:
        yield _parts(rng, f"is there any {name} ?", answer, ("yes", "no"))


def object_count(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """How many objects are there?"""
    if all(track.visible.all() for track in clip.tracks):
        yield _parts(rng, "how many objects are there ?", str(len(clip.tracks)), "1234")


def attribute_colour(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """What colour is the object of this shape?"""
    shapes = [track.shape for track in clip.tracks]
    for track in clip.stable:
        if shapes.count(track.shape) == 1:
            yield _parts(rng, f"what colour is the {track.shape} ?", track.colour, COLOURS)


def attribute_shape(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """What shape is the object of this colour?"""
    colours = [colour for track in clip.tracks for colour in set(track.colours)]
    for track in clip.stable:
        if colours.count(track.colour) == 1:
            yield _parts(rng, f"what shape is the {track.colour} object ?", track.shape, SHAPES)


def attribute_count(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """How many objects have this colour or shape?"""
    if any(not track.stable for track in clip.tracks):
        return
    for attribute, noun, pool in (("colour", "objects", list(COLOURS)), ("shape", "shapes", list(SHAPES))):
        for value in rng.permutation(pool):
            count = sum(getattr(track, attribute) == value for track in clip.tracks)
            if count <= 3:
                yield _parts(rng, f"how many {value} {noun} are there ?", str(count), "0123")


def scene(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """What is the background?"""
    if clip.scene_frame is None:
        yield _parts(rng, "what is the background ?", clip.backgrounds[0], BACKGROUNDS)


def _location(clip: Clip, rng: np.random.Generator, axis: str, sides: tuple[str, str]) -> Iterator[Parts]:
    """Which half of the image does an object stay in?"""
    for track in clip.stable:
        side = _side(getattr(track, axis), IMAGE_SIZE / 2, SIDE_MARGIN, sides)
        if side is not None:
            yield _parts(rng, f"is the {track.name} at the {sides[0]} or at the {sides[1]} ?", side, sides)


def _relation(clip: Clip, rng: np.random.Generator, axis: str, sides: tuple[str, str], link: str) -> Iterator[Parts]:
    """Which side of another object does an object stay on?"""
    for first, second in permutations(clip.stable, 2):
        side = _side(getattr(first, axis), getattr(second, axis), RELATION_MARGIN, sides)
        if side is not None:
            yield _parts(rng, f"is the {first.name} {' or '.join(sides)} {link} {second.name} ?", side, sides)


def moving_direction(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """Where does the object of this shape move?"""
    shapes = [track.shape for track in clip.tracks]
    for track in clip.tracks:
        if track.direction is not None and shapes.count(track.shape) == 1:
            yield _parts(rng, f"where does the {track.shape} move ?", track.direction, DIRECTIONS)


def moving_count(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """How many objects move?"""
    count = sum(track.direction is not None for track in clip.tracks)
    yield _parts(rng, "how many objects move ?", str(count), "0123")


def _which(rng: np.random.Generator, text: str, track: Track, among: list[Track]) -> Iterator[Parts]:
    """Which of the objects? All objects of the clip are options, so that one frame rules none of them out."""
    shapes = [other.shape for other in among]
    if len(shapes) > 1 and len(set(shapes)) == len(shapes):
        yield _parts(rng, text, track.shape, shapes)


def moving_object(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """Which object moves, or moves in this direction?"""
    movers = [track for track in clip.tracks if track.direction is not None]
    if len(movers) == 1:
        yield from _which(rng, "which object moves ?", movers[0], clip.tracks)
        return
    for direction in DIRECTIONS:
        heading = [track for track in movers if track.direction == direction]
        if len(heading) == 1:
            yield from _which(rng, f"which object moves {direction} ?", heading[0], clip.tracks)


def event_order(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """Which object changes colour first, or last?"""
    changed = sorted((t for t in clip.tracks if t.change_frame is not None), key=lambda t: t.change_frame or 0)
    if len(changed) == 2:
        for track, place in zip(changed, ("first", "last"), strict=True):
            yield from _which(rng, f"which object changes colour {place} ?", track, changed)


def appearance_order(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """In which order do the two objects appear that are visible for a while?"""
    passing = [track for track in clip.tracks if not track.blinks and not track.visible.all()]
    shapes = [track.shape for track in sorted(passing, key=lambda track: int(track.visible.argmax()))]
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        orders = [" then ".join(shapes), " then ".join(reversed(shapes))]
        yield _parts(rng, "which object appears first , which next ?", orders[0], orders)


def event_count(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """How many times does the object of this shape blink?"""
    for track in clip.tracks:
        if track.blinks:
            yield _parts(rng, f"how many times does the {track.shape} blink ?", str(track.blinks), "1234")


def state_change(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """Which object changes colour, and from or to which one?"""
    changed = [track for track in clip.tracks if track.change_frame is not None]
    if len(changed) != 1:
        return
    (track,) = changed
    yield from _which(rng, "which object changes colour ?", track, clip.tracks)
    # Both of its colours are options: knowing one frame leaves two of the four.
    before, after = track.colours[0], track.colours[-1]
    others = [colour for colour in COLOURS if colour not in (before, after)]
    options = [before, after, *(others[i] for i in rng.permutation(len(others))[:2])]
    for verb, answer in (("become", after), ("have first", before)):
        yield f"what colour does the {track.shape} {verb} ?", answer, mixed(options, rng)


def scene_change(clip: Clip, rng: np.random.Generator) -> Iterator[Parts]:
    """How does the background change?"""
    if clip.scene_frame is None:
        return
    before, after = clip.backgrounds[0], clip.backgrounds[-1]
    rest = [background for background in BACKGROUNDS if background not in (before, after)]
    # Two pairs, each in both orders: nothing in the list of options sets the right one apart.
    pairs = [(before, after), (after, before), (rest[0], rest[1]), (rest[1], rest[0])]
    options = mixed([f"{first} to {second}" for first, second in pairs], rng)
    yield "how does the background change ?", f"{before} to {after}", options


NAMED_BY_TASK = (
    existence, object_count, attribute_colour, attribute_shape, attribute_count, scene, moving_direction, moving_count,
    moving_object, event_order, event_count, appearance_order, state_change, scene_change,
)  # fmt: skip
ASK: dict[str, Ask] = {
    **{function.__name__: function for function in NAMED_BY_TASK},
    "location_horizontal": partial(_location, axis="x", sides=("left", "right")),
    "location_vertical": partial(_location, axis="y", sides=("top", "bottom")),
    "relation_horizontal": partial(_relation, axis="x", sides=("left", "right"), link="of the"),
    "relation_vertical": partial(_relation, axis="y", sides=("above", "below"), link="the"),
}


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


def caption(clip: Clip) -> str:
    """A still scene in words: the number of objects, the background, and each object's place from left to right."""
    parts = [f"{len(clip.tracks)} objects on {clip.backgrounds[0]} ."]
    for track in sorted(clip.tracks, key=lambda t: float(t.x[0])):
        across = "left" if track.x[0] < IMAGE_SIZE / 2 else "right"
        height = "top" if track.y[0] < IMAGE_SIZE / 2 else "bottom"
        parts.append(f"{track.name} at {height} {across} .")
    return " ".join(parts)
