"""Write the embedded world's clips and still images as benchmarks in MVBench's layout.

    <root>/json/<task>.json   [{"video", "question", "candidates", "answer", "question_id"}]
    <root>/video/<name>.mp4   or <root>/video/<name>.png for still images
    <root>/world.json         what made it

Every task has the same number of questions. Within a task, answers are as even as can be within each
form of question, and the right option stands at each place equally often.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videopool.files import whole_folder
from videopool.locks import locked
from videopool.runtime.terminal import watched
from videopool.shapes.images import render_image
from videopool.shapes.questions import ASK, Question
from videopool.shapes.render import render_clip
from videopool.shapes.scene import LONG_MOTION, Clip, random_clip, random_image
from videopool.shapes.world import CLIP_FPS, COLOURS, SHAPES, TASKS_OF

WORLD_VERSION = 1  # raise when the same settings give other clips or questions
SPLITS = {"train": 11, "validation": 12, "test": 13}  # first word of every seed: splits share no scene
EVENTS = ("none", "blink", "change", "order")
EVENT_SHARES = (0.34, 0.24, 0.2, 0.22)
SCENE_CHANGE_SHARE = 0.5
APPEAR_SHARE = 0.4  # of the kind "events"
STREAMS = {"clips": 0, "images": 100, "events": 200}  # kinds of splits share no scene
# ITU-R BT.601, limited range.
YUV_FROM_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
# Constant quantiser, no look-ahead: x264's look-ahead does not give the same file every time.
ENCODER = {
    "qp": "12",
    "preset": "veryfast",
    "threads": "1",
    "x264-params": "bframes=0:weightp=0:rc-lookahead=0:mbtree=0",
}
YUV_OFFSET = np.array([16.0, 128.0, 128.0])


@dataclass(frozen=True)
class WorldSettings:
    """What determines a split.

    Attributes:
        kind: "clips", "images", or "events": clips of one or two objects with long motions, one thing after another.
        split: "train", "validation" or "test".
        clips: how many clips or images.
        per_task: how many questions of each task.
        seed: of the split.
    """

    kind: str = "clips"
    split: str = "test"
    clips: int = 400
    per_task: int = 160
    seed: int = 0

    def describe(self) -> dict[str, object]:
        return {"version": WORLD_VERSION, **self.__dict__}


class WorldError(ValueError):
    """Settings from which no benchmark can be made."""


def _draw(settings: WorldSettings, index: int) -> tuple[Clip, np.random.Generator]:
    stream = SPLITS[settings.split] + STREAMS[settings.kind]
    rng = np.random.default_rng([stream, settings.seed, index])
    if settings.kind == "images":
        return random_image(rng), rng
    if settings.kind == "events":
        return _draw_event(rng), rng
    event = str(rng.choice(EVENTS, p=EVENT_SHARES))
    objects = int(rng.integers(1 if event in ("none", "blink") else 2, 5))
    movers = int(rng.integers(0, min(3, objects) + 1))
    return random_clip(rng, event, movers, objects, bool(rng.random() < SCENE_CHANGE_SHARE)), rng


def _draw_event(rng: np.random.Generator) -> Clip:
    scene_change = bool(rng.random() < SCENE_CHANGE_SHARE)
    if rng.random() < APPEAR_SHARE:
        return random_clip(rng, "appear", 0, 2, scene_change)
    return random_clip(rng, "none", 1, int(rng.integers(1, 3)), scene_change, least=LONG_MOTION)


def _form(question: Question) -> tuple[str, int]:
    """The form of a question: its words without the names of things, and its number of options."""
    things = set(COLOURS) | set(SHAPES)
    words = " ".join("_" if word in things else word for word in question.text.split())
    return words, len(question.options)


def balanced(pool: list[tuple[int, Question]], count: int, rng: np.random.Generator) -> list[tuple[int, Question]]:
    """Choose questions so that forms, then answers within a form, then clips, are used evenly.

    Raises:
        WorldError: there are fewer questions than asked for.
    """
    if len(pool) < count:
        task = pool[0][1].task if pool else "a task"
        raise WorldError(f"only {len(pool)} questions for {task}, {count} wanted: ask for more clips or fewer per task")
    buckets: dict[tuple[str, int], dict[str, list[tuple[int, Question]]]] = defaultdict(lambda: defaultdict(list))
    for place in rng.permutation(len(pool)):
        clip, question = pool[place]
        buckets[_form(question)][question.answer].append((clip, question))
    chosen: list[tuple[int, Question]] = []
    used: Counter[object] = Counter()
    while len(chosen) < count:
        form = min((f for f in buckets if any(buckets[f].values())), key=lambda f: (used[f], f))
        answers = [a for a, left in buckets[form].items() if left]
        answer = min(answers, key=lambda a: (used[form, a], a))
        left = buckets[form][answer]
        place = min(range(len(left)), key=lambda i: used[left[i][0]])
        picked = left.pop(place)
        used.update((form, (form, answer), picked[0]))
        chosen.append(picked)
    return chosen


def _place_answers(rows: list[tuple[int, Question]], rng: np.random.Generator) -> list[tuple[int, Question]]:
    """Reorder options so that, for each number of options, the answer stands at each place equally often."""
    placed, turn = [], Counter[int]()
    for row in rng.permutation(len(rows)):
        clip, question = rows[row]
        size = len(question.options)
        wrong = [o for o in question.options if o != question.answer]
        wrong.insert(turn[size] % size, question.answer)
        turn[size] += 1
        placed.append((clip, Question(question.task, question.text, question.answer, tuple(wrong))))
    return placed


def choose_questions(settings: WorldSettings) -> tuple[list[Clip], dict[str, list[tuple[int, Question]]]]:
    """All clips of a split, and for each task its questions with the number of their clip."""
    tasks = TASKS_OF[settings.kind]
    pools: dict[str, list[tuple[int, Question]]] = {task: [] for task in tasks}
    clips = []
    for index in range(settings.clips):
        clip, rng = _draw(settings, index)
        clips.append(clip)
        for task in tasks:
            pools[task] += [(index, question) for question in ASK[task](clip, rng)]
    chosen = {}
    for number, task in enumerate(tasks):
        rng = np.random.default_rng([SPLITS[settings.split], settings.seed, 1_000_000 + number])
        if not pools[task]:
            raise WorldError(f"no questions for {task}: ask for more clips")
        chosen[task] = _place_answers(balanced(pools[task], settings.per_task, rng), rng)
    return clips, chosen


def to_yuv420(frame: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] to planar YUV 4:2:0 [H * 3 / 2, W], BT.601 limited range, H and W even.

    Written out, so that the files do not depend on the version or the processor's path of FFmpeg's converter.
    """
    luma, blue, red = np.moveaxis(frame @ YUV_FROM_RGB.T / 255.0 + YUV_OFFSET, -1, 0)
    height, width = luma.shape
    halves = [c.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)).reshape(-1, width) for c in (blue, red)]
    return np.clip(np.rint(np.concatenate([luma, *halves])), 0, 255).astype(np.uint8)


def write_mp4(path: Path, frames: np.ndarray, fps: int = CLIP_FPS) -> None:
    """Write uint8 [F, H, W, 3] frames as H.264 in MP4, nearly lossless."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:  # no date in the file
        stream = container.add_stream("libx264", rate=fps, options=ENCODER)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(to_yuv420(frame), format="yuv420p")))
        container.mux(stream.encode())


def build(settings: WorldSettings, root: Path) -> Path:
    """Write a split under root, or find it there. Several processes may do so at once.

    Returns:
        The folder of this split.

    Raises:
        WorldError: the settings cannot be met.
    """
    if settings.kind not in STREAMS or settings.split not in SPLITS:
        raise WorldError(f"no {settings.kind!r} split {settings.split!r}: choose one of {', '.join(SPLITS)}")
    name = f"{settings.kind}-{settings.split}-{settings.clips}x{settings.per_task}-seed{settings.seed}-v{WORLD_VERSION}"
    folder = root / name
    if (folder / "world.json").is_file():
        return folder
    clips, chosen = choose_questions(settings)
    with locked(root / f".{name}.lock"):
        if not (folder / "world.json").is_file():  # else another process was first
            with whole_folder(folder, fsync=False) as part:
                _render(settings, part, clips, chosen)
    return folder


def _render(
    settings: WorldSettings, part: Path, clips: list[Clip], chosen: dict[str, list[tuple[int, Question]]]
) -> None:
    suffix = ".png" if settings.kind == "images" else ".mp4"
    (part / "video").mkdir()
    (part / "json").mkdir()
    for index, clip in enumerate(watched(clips, f"rendering {settings.kind}-{settings.split}")):
        path = part / "video" / f"{index:05d}{suffix}"
        if settings.kind == "images":
            Image.fromarray(render_image(clip)).save(path)
        else:
            write_mp4(path, render_clip(clip))
    for task, rows in chosen.items():
        listed = [
            {
                "question_id": f"{task}/{number:04d}",
                "video": f"{clip:05d}{suffix}",
                "question": question.text,
                "candidates": list(question.options),
                "answer": question.answer,
            }
            for number, (clip, question) in enumerate(rows)
        ]
        (part / "json" / f"{task}.json").write_text(json.dumps(listed, indent=1))
    (part / "world.json").write_text(json.dumps(settings.describe(), indent=1))
