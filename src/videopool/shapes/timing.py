"""Clips of the embedded world to measure speed on: any size in pixels, a fixed number of questions on each.

<folder>/video/<name>.mp4
<folder>/json/questions_<n>.json   MVBench's layout; n questions on every clip, the first n of the longest list
<folder>/made.json                 what made it; written last
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from videopool.benchmarks import BenchmarkError
from videopool.shapes.clips import write_mp4
from videopool.shapes.questions import ASK, Question
from videopool.shapes.render import render_clip
from videopool.shapes.scene import Clip, random_clip
from videopool.shapes.world import CLIP_FPS, IMAGE_SIZE, TASKS

STREAM = 14  # first word of the seeds: no scene of a split is drawn here


def write_timing_clips(
    root: str | Path, clips: int, questions: Sequence[int], pixels: int = IMAGE_SIZE, hold: int = 1
) -> Path:
    """Write clips and questions below root, or find them there.

    Args:
        clips: how many.
        questions: numbers of questions on a clip, a list of them for each number.
        pixels: side of a frame, an even number; frames are drawn at IMAGE_SIZE and enlarged (bicubic).
        hold: how often each of a clip's CLIP_FRAMES is shown, so that there is more to decode.

    Returns:
        The folder, to be read by load_mvbench with tasks=["questions_<n>"].

    Raises:
        BenchmarkError: a number that is not positive, or an odd side.
    """
    asked = sorted(set(questions))
    settings = {"clips": clips, "questions": asked, "pixels": pixels, "hold": hold}
    if min(clips, pixels, hold, *asked) < 1 or pixels % 2:
        raise BenchmarkError(f"clips to time must have positive sizes and an even side, got {settings}")
    folder = Path(root) / f"timing-{clips}x{'-'.join(map(str, asked))}-{pixels}px-{hold}"
    done = folder / "made.json"
    if done.is_file():
        return folder
    for name in ("video", "json"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, list[Question]]] = []
    for number in range(clips):
        rng = np.random.default_rng([STREAM, number])
        clip = random_clip(rng, "none", movers=2, objects=4, scene_change=False)
        frames = enlarged(render_clip(clip), pixels).repeat(hold, axis=0)
        write_mp4(folder / "video" / f"{number:05d}.mp4", frames, CLIP_FPS * hold)
        rows.append((f"{number:05d}", ask(clip, asked[-1], rng)))
    for count in asked:
        listed = [
            {
                "question_id": f"{name}/{place:03d}",
                "video": f"{name}.mp4",
                "question": question.text,
                "candidates": list(question.options),
                "answer": question.answer,
            }
            for name, chosen in rows
            for place, question in enumerate(chosen[:count])
        ]
        (folder / "json" / f"questions_{count}.json").write_text(json.dumps(listed, indent=1))
    done.write_text(json.dumps(settings))
    return folder


def enlarged(frames: np.ndarray, pixels: int) -> np.ndarray:
    """uint8 frames [F, H, W, 3] at another size, [F, pixels, pixels, 3]."""
    if frames.shape[1:3] == (pixels, pixels):
        return frames
    return np.stack([np.asarray(Image.fromarray(f).resize((pixels, pixels), Image.Resampling.BICUBIC)) for f in frames])


def ask(clip: Clip, count: int, rng: np.random.Generator) -> list[Question]:
    """So many questions on a clip, of all tasks in turn; they repeat with other options once all were asked."""
    asked: list[Question] = []
    while len(asked) < count:
        drawn = [ASK[task](clip, rng) for task in TASKS]
        for place in range(max(map(len, drawn))):
            asked += [questions[place] for questions in drawn if place < len(questions)]
    return asked[:count]
