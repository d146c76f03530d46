"""The synthetic benchmark's training split as conversations."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

import numpy as np

from videopool.benchmarks import BenchmarkError, Prompt, Sample
from videopool.shapes.benchmark import load_shapes
from videopool.training_data import Conversation, Example, Round, Source, TrainingDataError

STREAM = 15  # first number of the seeds


def load_world(
    root: str | Path, name: str, prompt: Prompt, kind: str = "clips", split: str = "train", clips: int = 1200,
    per_task: int = 400, seed: int = 0, tasks: Sequence[str] | None = None, letters: float = 0.7, rounds: int = 8,
    weight: float = 1.0, independent: bool = True,
) -> Source:  # fmt: skip
    """Questions on rendered clips or images, up to `rounds` about one clip in a conversation.

    Args:
        root: folder of the rendered clips; they are rendered first unless they are there.
        name, weight: see Source.
        prompt: words questions and options as in evaluation.
        kind, split, clips, per_task, seed: see WorldSettings; "validation" and "test" are for evaluation. The seed
            also draws how questions are put.
        tasks: only these; None for all.
        letters: share of questions that list their options and are answered by one; others are answered in words.
        independent: each question is put as if it were the only one, as in evaluation; else they are one dialogue.

    Raises TrainingDataError for settings that cannot be met, or a folder that cannot be written.
    """
    where = f"training_data.sources.{name}"
    numbers = isinstance(letters, (int, float)) and isinstance(rounds, int)
    if not numbers or not 0 <= letters <= 1 or rounds < 1:
        raise TrainingDataError(f"{where}: letters must lie in 0..1 and rounds be positive, got {letters}, {rounds}")
    try:
        benchmark = load_shapes(root, kind, split, clips, per_task, seed, id=name)
    except BenchmarkError as error:
        raise TrainingDataError(f"{where}: {error}") from error
    known = {sample.task for sample in benchmark.samples}
    if unknown := set(tasks or ()) - known:
        raise TrainingDataError(f"{where}.tasks: no {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    by_clip: dict[str, list[Sample]] = defaultdict(list)
    for sample in benchmark.samples:
        if tasks is None or sample.task in tasks:
            by_clip[sample.clip_id].append(sample)
    examples = []
    for number, (clip_id, samples) in enumerate(sorted(by_clip.items())):
        rng = np.random.default_rng([STREAM, seed, number])
        mixed = [samples[i] for i in rng.permutation(len(samples))]
        media, medium = mixed[0].clip, "image" if kind == "images" else "video"
        for start in range(0, len(mixed), rounds):
            asked = [_round(sample, prompt, bool(rng.random() < letters)) for sample in mixed[start : start + rounds]]
            example_id = f"{clip_id}/{start // rounds}"
            entry = f"{media.parents[1]}, {example_id}"
            conversation = Conversation(asked, independent=independent)
            examples.append(Example(example_id, media, clip_id, medium, conversation, entry))
    return Source(name, examples, (), weight)


def _round(sample: Sample, prompt: Prompt, by_letter: bool) -> Round:
    """One question: with its options, answered by an option as it is written; or alone, answered in words."""
    if not by_letter:
        return Round(prompt.question_text(sample.question), sample.answer)
    question = prompt.question_text(sample.question, sample.options)
    letter = ascii_uppercase[sample.options.index(sample.answer)]
    answer = prompt.option.replace("{letter}", letter).replace("{text}", sample.answer)
    # The answer continues evaluation's prefix: " (" leaves "A) red" of "(A) red".
    rest = answer.removeprefix(prompt.answer_prefix.lstrip())
    return Round(question, rest, prompt.answer_prefix) if rest != answer else Round(question, answer)
