"""The synthetic benchmark's clips and still images, written in MVBench's layout.

    <root>/json/<task>.json   [{"video", "question", "candidates", "answer", "question_id"}]
    <root>/video/<name>.mp4   or <root>/video/<name>.png for still images
    <root>/world.json         the settings; written last

All tasks have equally many questions. Within a task, answers are as even as possible within each form of question,
and the right option stands at each place equally often.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videopool.files import whole_folder
from videopool.locks import locked
from videopool.runtime.progress import watched
from videopool.shapes.questions import Question, ask
from videopool.shapes.render import render_clip, render_image
from videopool.shapes.scene import CLIP_FPS, COLOURS, LONG_MOTION, SHAPES, TASKS_OF, Clip, random_clip, random_image

WORLD_VERSION = 1  # raise when the same settings give other clips or questions
SPLITS = {"train": 11, "validation": 12, "test": 13}  # first number of every seed: splits share no scene
STREAMS = {"clips": 0, "images": 100, "events": 200}  # added to it: kinds of splits share no scene
EVENTS = {"none": 0.34, "blink": 0.24, "change": 0.2, "order": 0.22}  # their shares in the kind "clips"
SCENE_CHANGE_SHARE = 0.5
APPEAR_SHARE = 0.4  # in the kind "events"
# ITU-R BT.601, limited range.
YUV_FROM_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
YUV_OFFSET = np.array([16.0, 128.0, 128.0])
# Constant quantiser, no look-ahead: x264's look-ahead does not give the same file every time.
X264 = "bframes=0:weightp=0:rc-lookahead=0:mbtree=0"
ENCODER = {"qp": "12", "preset": "veryfast", "threads": "1", "x264-params": X264}

Asked = tuple[int, Question]  # the number of a clip, and a question about it


@dataclass(frozen=True)
class WorldSettings:
    """The settings that determine a split."""

    kind: str = "clips"  # "images"; or "events": one or two objects, long motions, one event after another
    split: str = "test"  # or "train", "validation"
    clips: int = 400  # or images
    per_task: int = 160  # questions
    seed: int = 0


class WorldError(ValueError):
    """Settings from which no benchmark can be made."""


def _draw(settings: WorldSettings, index: int) -> tuple[Clip, np.random.Generator]:
    stream = SPLITS[settings.split] + STREAMS[settings.kind]
    rng = np.random.default_rng([stream, settings.seed, index])
    if settings.kind == "images":
        return random_image(rng), rng
    if settings.kind == "events":
        scene_change = bool(rng.random() < SCENE_CHANGE_SHARE)
        if rng.random() < APPEAR_SHARE:
            return random_clip(rng, "appear", 0, 2, scene_change), rng
        return random_clip(rng, "none", 1, int(rng.integers(1, 3)), scene_change, LONG_MOTION), rng
    event = str(rng.choice(list(EVENTS), p=list(EVENTS.values())))
    objects = int(rng.integers(1 if event in ("none", "blink") else 2, 5))
    movers = int(rng.integers(0, min(3, objects) + 1))
    return random_clip(rng, event, movers, objects, bool(rng.random() < SCENE_CHANGE_SHARE)), rng


def balanced(task: str, pool: list[Asked], count: int, rng: np.random.Generator) -> list[Asked]:
    """Choose questions so that forms, then answers within a form, then clips are used evenly.

    Raises WorldError if the pool has fewer questions than wanted.
    """
    if len(pool) < count:
        raise WorldError(f"only {len(pool)} questions for {task}, {count} wanted: ask for more clips or fewer per task")
    buckets: dict[tuple[str, int], dict[str, list[Asked]]] = defaultdict(lambda: defaultdict(list))
    for place in rng.permutation(len(pool)):
        question = pool[place][1]
        # A question's form: its words without the names of things, and its number of options.
        words = " ".join("_" if word in COLOURS or word in SHAPES else word for word in question.text.split())
        buckets[words, len(question.options)][question.answer].append(pool[place])
    chosen: list[Asked] = []
    used: Counter[object] = Counter()
    while len(chosen) < count:
        form = min((form for form in buckets if any(buckets[form].values())), key=lambda form: (used[form], form))
        answers = [answer for answer, left in buckets[form].items() if left]
        answer = min(answers, key=lambda answer: (used[form, answer], answer))
        left = buckets[form][answer]
        clips = [used.get(clip, 0) for clip, _ in left]
        picked = left.pop(clips.index(min(clips)))
        used.update((form, (form, answer), picked[0]))
        chosen.append(picked)
    return chosen


def _place_answers(rows: list[Asked], rng: np.random.Generator) -> list[Asked]:
    """Reorder options so that, for each number of options, the answer stands at each place equally often."""
    placed, turn = [], Counter[int]()
    for row in rng.permutation(len(rows)):
        clip, question = rows[row]
        size = len(question.options)
        options = [option for option in question.options if option != question.answer]
        options.insert(turn[size] % size, question.answer)
        turn[size] += 1
        placed.append((clip, replace(question, options=tuple(options))))
    return placed


def choose_questions(settings: WorldSettings) -> tuple[list[Clip], dict[str, list[Asked]]]:
    """All clips of a split, and per task its questions with the numbers of their clips. Raises WorldError as build."""
    tasks = TASKS_OF[settings.kind]
    pools: dict[str, list[Asked]] = {task: [] for task in tasks}
    clips = []
    for index in range(settings.clips):
        clip, rng = _draw(settings, index)
        clips.append(clip)
        for task in tasks:
            pools[task] += [(index, question) for question in ask(task, clip, rng)]
    chosen = {}
    for number, task in enumerate(tasks):
        rng = np.random.default_rng([SPLITS[settings.split], settings.seed, 1_000_000 + number])
        chosen[task] = _place_answers(balanced(task, pools[task], settings.per_task, rng), rng)
    return clips, chosen


def to_yuv420(frame: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] to planar YUV 4:2:0 [H * 3 / 2, W], BT.601 limited range, H and W even.

    Written out, so that the files do not depend on FFmpeg's version or on the processor that its converter runs on.
    """
    yuv = frame @ YUV_FROM_RGB.T
    yuv /= 255.0
    yuv += YUV_OFFSET
    rows = yuv[:, ::2, 1:] + yuv[:, 1::2, 1:]
    halves = np.moveaxis((rows[::2] + rows[1::2]) / 4, -1, 0).reshape(-1, frame.shape[1])
    return np.rint(np.concatenate([yuv[..., 0], halves])).astype(np.uint8)  # all are in 16..240


def write_mp4(path: Path, frames: np.ndarray, fps: int = CLIP_FPS) -> None:
    """Write uint8 frames [F, H, W, 3] as H.264 in MP4, nearly lossless."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:  # no date in the file
        stream = container.add_stream("libx264", rate=fps, options=ENCODER)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(to_yuv420(frame), format="yuv420p")))
        container.mux(stream.encode())


def write_questions(path: Path, rows: Iterable[tuple[str, str, Question]]) -> None:
    """Write questions in MVBench's layout. Each row is the question's id, the file of its clip, and the question."""
    listed = [
        {"question_id": name, "video": clip, "question": q.text, "candidates": list(q.options), "answer": q.answer}
        for name, clip, q in rows
    ]
    path.write_text(json.dumps(listed, indent=1))


def build(settings: WorldSettings, root: Path) -> Path:
    """Write a split under root unless it is there, and return its folder. Several processes may do so at once.

    Raises WorldError if the settings cannot be met.
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


def _render(settings: WorldSettings, part: Path, clips: list[Clip], chosen: dict[str, list[Asked]]) -> None:
    (part / "video").mkdir()
    (part / "json").mkdir()
    names = [f"{index:05d}.{'png' if settings.kind == 'images' else 'mp4'}" for index in range(len(clips))]
    for name, clip in watched([*zip(names, clips, strict=True)], f"rendering {settings.kind} of {settings.split}"):
        if settings.kind == "images":
            Image.fromarray(render_image(clip)).save(part / "video" / name)
        else:
            write_mp4(part / "video" / name, render_clip(clip))
    for task, rows in chosen.items():
        listed = ((f"{task}/{number:04d}", names[clip], question) for number, (clip, question) in enumerate(rows))
        write_questions(part / "json" / f"{task}.json", listed)
    (part / "world.json").write_text(json.dumps({"version": WORLD_VERSION, **settings.__dict__}, indent=1))
