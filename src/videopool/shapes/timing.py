"""Synthetic clips to measure speed on: any size in pixels, a fixed number of questions per clip.

<folder>/video/<name>.mp4
<folder>/json/questions_<n>.json   MVBench's layout; per clip the first n questions of the longest list
<folder>/made.json                 the settings; written last
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from videopool.benchmarks import BenchmarkError
from videopool.shapes.clips import write_mp4, write_questions
from videopool.shapes.questions import Question, ask
from videopool.shapes.render import render_clip
from videopool.shapes.scene import CLIP_FPS, IMAGE_SIZE, TASKS, Clip, random_clip

STREAM = 14  # first number of the seeds: no scene of a split is drawn here


def write_timing_clips(
    root: str | Path, clips: int, questions: Sequence[int], pixels: int = IMAGE_SIZE, hold: int = 1
) -> Path:
    """Write clips and questions below root unless they are there, and return the folder.

    load_mvbench reads it with tasks=["questions_<n>"]: one file for each number of questions per clip. Frames are drawn
    at IMAGE_SIZE and enlarged (bicubic) to `pixels`, an even side. Each of a clip's CLIP_FRAMES is repeated `hold`
    times, so that there is more to decode. Raises BenchmarkError for a number that is not positive, or an odd side.
    """
    counts = sorted(set(questions))
    settings = {"clips": clips, "questions": counts, "pixels": pixels, "hold": hold}
    if min(clips, pixels, hold, *counts) < 1 or pixels % 2:
        raise BenchmarkError(f"clips to time must have positive sizes and an even side, got {settings}")
    folder = Path(root) / f"timing-{clips}x{'-'.join(map(str, counts))}-{pixels}px-{hold}"
    done = folder / "made.json"
    if done.is_file():
        return folder
    for name in ("video", "json"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    asked: dict[str, list[Question]] = {}
    for number in range(clips):
        rng = np.random.default_rng([STREAM, number])
        clip = random_clip(rng, "none", movers=2, objects=4, scene_change=False)
        frames = render_clip(clip)
        if pixels != IMAGE_SIZE:
            size = (pixels, pixels)
            frames = np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])
        write_mp4(folder / "video" / f"{number:05d}.mp4", frames.repeat(hold, axis=0), CLIP_FPS * hold)
        asked[f"{number:05d}"] = _questions(clip, counts[-1], rng)
    for count in counts:
        rows = (
            (f"{name}/{place:03d}", f"{name}.mp4", question)
            for name, listed in asked.items()
            for place, question in enumerate(listed[:count])
        )
        write_questions(folder / "json" / f"questions_{count}.json", rows)
    done.write_text(json.dumps(settings))
    return folder


def _questions(clip: Clip, count: int, rng: np.random.Generator) -> list[Question]:
    """Questions about a clip, of all tasks in turn; they repeat with other options once all were asked."""
    chosen: list[Question] = []
    while len(chosen) < count:
        drawn = [ask(task, clip, rng) for task in TASKS]
        for place in range(max(map(len, drawn))):
            chosen += [questions[place] for questions in drawn if place < len(questions)]
    return chosen[:count]
