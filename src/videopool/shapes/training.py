"""The embedded world's training split as conversations."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from videopool.benchmarks import BenchmarkError, Prompt, Sample
from videopool.shapes.benchmark import load_shapes
from videopool.training_data import Conversation, Example, Round, Source, TrainingDataError

STREAM = 15  # first word of the seeds


def load_world(
    root: str | Path,
    name: str,
    prompt: Prompt,
    kind: str = "clips",
    split: str = "train",
    clips: int = 1200,
    per_task: int = 400,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    letters: float = 0.7,
    rounds: int = 8,
    weight: float = 1.0,
    independent: bool = True,
) -> Source:
    """Questions on rendered clips or images, up to `rounds` of one clip in a conversation.

    Args:
        root: what is rendered lies below it, and is rendered if it is not there.
        name: of the source, as in the configuration.
        prompt: how a question with options is put, and an option is written: as in evaluation.
        kind: "clips", "events" or "images", see WorldSettings.
        split: "train"; "validation" and "test" are for evaluation.
        clips: how many clips or images.
        per_task: questions of each task on all of them.
        seed: of the split, and of how questions are put.
        tasks: only these; None for all.
        letters: share of questions that are put with options and answered by one of them; others in words.
        rounds: questions in a conversation, at most.
        weight: see Source.
        independent: each question is put as if it were the only one, as in evaluation; else they are one dialogue.

    Raises:
        TrainingDataError: settings that cannot be met, or a folder that cannot be written.
    """
    where = f"training_data.sources.{name}"
    if not 0 <= letters <= 1 or rounds < 1:
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
        for start in range(0, len(mixed), rounds):
            said = [_round(sample, prompt, bool(rng.random() < letters)) for sample in mixed[start : start + rounds]]
            example_id = f"{clip_id}/{start // rounds}"
            medium = "image" if kind == "images" else "video"
            told = f"{mixed[0].clip.parents[1]}, {example_id}"
            conversation = Conversation(said, independent=independent)
            examples.append(Example(example_id, mixed[0].clip, clip_id, medium, conversation, told))
    return Source(name, examples, (), weight)


def _round(sample: Sample, prompt: Prompt, by_letter: bool) -> Round:
    """One question, put with its options and answered as they are written, or put alone and answered in words."""
    bare = replace(prompt, template="{image}{question}", answer_prefix="", open_answer_prefix="")
    if not by_letter:
        return Round(bare.text(sample.question, image=""), sample.answer)
    letter = "ABCDEFGH"[sample.options.index(sample.answer)]
    answer = prompt.option.replace("{letter}", letter).replace("{text}", sample.answer)
    # The answer goes on behind what evaluation writes: " (" leaves "A) red" of "(A) red".
    given = prompt.answer_prefix
    rest = answer.removeprefix(given.lstrip())
    question = bare.text(sample.question, sample.options, image="")
    return Round(question, rest, given) if rest != answer else Round(question, answer)
