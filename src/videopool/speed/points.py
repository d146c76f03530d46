"""Points run for their time: with the program's sharing, without any of it, and at the least that is possible."""

import contextlib
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from videopool.benchmarks.scoring import LETTERS
from videopool.evaluation.evaluator import Asked, Evaluator, answer_with_weights, likeliest
from videopool.evaluation.records import sample_fields
from videopool.evaluation.run import evaluate_point
from videopool.features import FeatureStore
from videopool.inference.batches import clips_at_once, group_by_clip
from videopool.models import Backbone, VideoLM
from videopool.models.reading import next_token_logits, prefill
from videopool.points.point import Point
from videopool.results import read_records
from videopool.runtime.outcome import Outcome
from videopool.speed.timing import synchronise, timed
from videopool.video import Sampler, open_clip

LOAD, OTHER = "load", "other"


class Measured(Evaluator):
    """The program's evaluator with a clock that waits for the GPU, so that each kind of work gets its own time."""

    @contextmanager
    def clock(self, kind: str) -> Iterator[None]:
        synchronise()
        with super().clock(kind):
            yield
            synchronise()


class Alone(Measured):
    """Reads each question with its whole prompt, one after another. Options of multiple choice only."""

    def _answer(
        self, asked: Sequence[Asked], features: Tensor, text: Tensor | None = None
    ) -> dict[str, dict[str, object]]:
        with self.clock("pool"):
            tokens = self.tokens_of([clip for clip, _ in asked], features.to(self.backbone.dtype), text)
        records: dict[str, dict[str, object]] = {}
        for (clip, samples), seen in zip(asked, tokens, strict=True):
            for sample in samples:
                before, after = self.backbone.split_prompt(self._text(sample, listed=True))
                with self.clock("whole prompts"):
                    scores = self._scores(before, seen, after)
                letters = LETTERS[: len(sample.options)]
                ids = self.backbone.next_token_ids(self.answers.prompt.answer_start, letters)
                records[sample.id] = {
                    **sample_fields(sample),
                    "status": "ok",
                    **likeliest(sample, scores[ids].tolist()),
                    "frame_indices": clip.indices,
                    "visual_tokens": len(seen),
                }
        return records

    def _scores(self, before: Sequence[int], seen: Tensor, after: Sequence[int]) -> Tensor:
        """Log-probabilities of the token behind the whole prompt [vocabulary] (CPU)."""
        device = self.backbone.device
        head, tail = (self.backbone.embed(torch.tensor([list(ids)], device=device)) for ids in (before, after))
        whole = torch.cat([head, seen[None].to(self.backbone.dtype), tail], dim=1)
        hidden = self.backbone.llm(whole, use_cache=False).last_hidden_state
        return self.backbone.logits(hidden[0, -1:]).cpu()[0].log_softmax(-1)


@dataclass
class Run:
    """One point, run.

    Attributes:
        seconds: wall clock, from its configuration to its metrics.
        kinds: seconds by kind of work; they add up to `seconds`.
        records: by sample.
    """

    seconds: float
    kinds: dict[str, float]
    records: dict[str, dict[str, Any]]


def run_point(config: DictConfig, evaluator: type[Evaluator], store: FeatureStore, load: Callable[[], Backbone]) -> Run:
    """Run a point as job=evaluate does.

    Args:
        config: of the point; its folder must not hold it yet.
        evaluator: Measured or Alone.
        store: of features.
        load: gives the model; its time counts.
    """
    kinds: dict[str, float] = defaultdict(float)
    made: list[Evaluator] = []

    def loading(_: Point) -> Backbone:
        kinds[LOAD], backbone = timed(load)
        return backbone

    def making(*parts: Any) -> Evaluator:
        made.append(evaluator(*parts))
        return made[0]

    def run() -> Outcome:
        torch.manual_seed(int(config.seed))
        point = Point(config)
        point.store = store
        return evaluate_point(point, partial(answer_with_weights, point, load=loading, kind=making))

    # The progress of a single point is not shown: the job has a bar of its own.
    with contextlib.redirect_stdout(io.StringIO()):
        seconds, outcome = timed(run)
    kinds |= made[0].seconds
    kinds[OTHER] = seconds - sum(kinds.values())
    records = read_records(Path(outcome.folder) / "records.jsonl")
    return Run(seconds, dict(kinds), {str(record["id"]): record for record in records})


class Floor:
    """The least that a sweep has to do, without the program around it: no files, no loops of Lightning, no records.

    Args:
        backbone: the model.
        point: any of the sweep: its benchmark, prompt, reader and batch limits are those of all.
    """

    def __init__(self, backbone: Backbone, point: Point) -> None:
        self.backbone = backbone
        self.reader = str(point.config.job.reader)
        self.clips = group_by_clip(point.benchmark.samples)
        self.prompts: list[list[tuple[list[int], list[int]]]] = [
            [
                backbone.split_prompt(point.prompt.text(s.question, s.options, backbone.image_token))
                for s in clip.samples
            ]
            for clip in self.clips
        ]
        self.features: list[dict[int, Tensor]] = [{} for _ in self.clips]
        self.indices: dict[int, list[list[int]]] = {}

    @property
    def before(self) -> list[int]:
        """Ids of the text before the visual tokens, the same for all."""
        return self.prompts[0][0][0]

    def questions(self, clip: int) -> list[int]:
        """Lengths of a clip's questions, in tokens."""
        return [len(after) for _, after in self.prompts[clip]]

    def choose(self, samplers: Sequence[Sampler]) -> int:
        """Choose frames by each sampler; returns how many there are in all clips, each counted once."""
        self.indices = {sampler.num: [] for sampler in samplers}
        for job in self.clips:
            with open_clip(job.clip, self.reader, job.fps) as clip:
                info = clip.info
            for sampler in samplers:
                self.indices[sampler.num].append(sampler.indices(info, job.start, job.end, job.name))
        return sum(map(len, self._unions()))

    def _unions(self) -> list[list[int]]:
        """All chosen frames of each clip."""
        return [
            sorted({index for chosen in self.indices.values() for index in chosen[place]})
            for place in range(len(self.clips))
        ]

    def decode(self) -> float:
        """Decode all chosen frames of all clips in one go each; seconds."""
        started = time.perf_counter()
        for job, union in zip(self.clips, self._unions(), strict=True):
            with open_clip(job.clip, self.reader, job.fps) as clip:
                clip.frames(union)
        return time.perf_counter() - started

    def encode(self, frames: int) -> dict[str, float] | None:
        """Preprocess and encode what a number of frames adds to what was encoded before; seconds by kind of work.

        None if it adds nothing. Decoding for it is not counted: decode() is what that takes at least.
        """
        seconds: dict[str, float] = defaultdict(float)
        for place, job in enumerate(self.clips):
            new = sorted(set(self.indices[frames][place]) - self.features[place].keys())
            if not new:
                continue
            with open_clip(job.clip, self.reader, job.fps) as clip:
                read = clip.frames(new)
            synchronise()
            started = time.perf_counter()
            pixels = self.backbone.preprocess(read)
            ready = time.perf_counter()
            encoded = self.backbone.features(pixels).cpu()
            seconds["preprocess"] += ready - started
            seconds["vision"] += time.perf_counter() - ready
            self.features[place] |= dict(zip(new, encoded, strict=True))
        return dict(seconds) or None

    @torch.inference_mode()
    def answer(self, point: Point) -> dict[str, float]:
        """Pool and read all clips for one point, in batches as large as the program's; seconds by kind of work."""
        seconds: dict[str, float] = defaultdict(float)
        model = VideoLM(self.backbone, point.pooling, point.stage)
        job, chosen = point.config.job, self.indices[point.sampler.num]
        size = clips_at_once(job, point.visual_tokens)
        for first in range(0, len(self.clips), size):
            places = range(first, min(first + size, len(self.clips)))
            synchronise()
            started = time.perf_counter()
            kept = [torch.stack([self.features[place][i] for i in chosen[place]]) for place in places]
            tokens = model.visual_tokens(torch.stack(kept).to(self.backbone.device, self.backbone.dtype))
            synchronise()
            pooled = time.perf_counter()
            prefix = prefill(self.backbone, self.before, tokens)
            synchronise()
            filled = time.perf_counter()
            next_token_logits(self.backbone, prefix, [[after for _, after in self.prompts[place]] for place in places])
            seconds["pool"] += pooled - started
            seconds["prefill"] += filled - pooled
            seconds["questions"] += time.perf_counter() - filled
        return dict(seconds)


def compare(one: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]], slack: float) -> dict:
    """Hold two runs' records to each other.

    Args:
        slack: by how much options' log-probabilities may differ, and be so close that which is ahead is rounding.

    Returns:
        compared, max_difference of options' log-probabilities, and ties: samples whose predictions differ
        between options that are within slack of each other.

    Raises:
        AssertionError: other samples, predictions, or log-probabilities: sharing would have changed results.
    """
    if one.keys() != other.keys():
        raise AssertionError("the two ways did not answer the same samples")
    largest, ties = 0.0, 0
    for name, left in one.items():
        right = other[name]
        pairs = list(zip(left["option_logprobs"], right["option_logprobs"], strict=True))
        difference = max(abs(a - b) for a, b in pairs)
        largest = max(largest, difference)
        if difference > slack:
            raise AssertionError(f"{name}: log-probabilities of options differ by {difference:.4f}")
        if left["prediction"] == right["prediction"]:
            continue
        places = [left["options"].index(record["prediction"]) for record in (left, right)]
        if abs(left["option_logprobs"][places[0]] - left["option_logprobs"][places[1]]) > slack:
            raise AssertionError(
                f"{name}: predicted {left['prediction']!r} one way and {right['prediction']!r} the other"
            )
        ties += 1
    return {"compared": len(one), "max_difference": largest, "ties": ties}
