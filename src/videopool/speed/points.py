"""Points run for their time: with sharing, with none, and at their floor, the least possible work."""

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from videopool.benchmarks import Sample
from videopool.benchmarks.scoring import LETTERS
from videopool.evaluation.evaluator import Asked, Evaluator, likeliest
from videopool.evaluation.local import answer_with_weights
from videopool.evaluation.records import about
from videopool.evaluation.run import evaluate_point
from videopool.features import ClipJob, FeatureStore
from videopool.inference.batches import clips_at_once, group_by_clip
from videopool.models import Backbone, VideoLM
from videopool.models.reading import next_token_logits, prefill
from videopool.points.point import Point
from videopool.results import read_records
from videopool.runtime.outcome import Outcome
from videopool.speed.bench import Bench
from videopool.speed.timing import clock, timed
from videopool.video import Clip, Sampler, open_clip

LOAD, OTHER = "load", "other"
SLACK = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}  # tolerance of options' log-probabilities, by dtype


class Measured(Evaluator):
    """The program's evaluator; its clock waits for the GPU, so that each kind of work gets its own time."""

    def clock(self, kind: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return clock(self.seconds, kind)


class Alone(Measured):
    """Reads each question with its whole prompt, one after another. For multiple choice only."""

    def _answer(
        self, asked: Sequence[Asked], features: Tensor, text: Tensor | None = None
    ) -> dict[str, dict[str, object]]:
        with self.clock("pool"):
            tokens = self.tokens_of([clip for clip, _ in asked], features, text)
        records: dict[str, dict[str, object]] = {}
        for (clip, samples), visual in zip(asked, tokens, strict=True):
            for sample in samples:
                with self.clock("whole prompts"):
                    scores = self._scores(sample, visual)
                outcome = {"status": "ok", **likeliest(sample, scores)}
                place = {"frame_indices": clip.indices, "visual_tokens": len(visual)}
                records[sample.id] = {**about(sample), **outcome, **place}
        return records

    def _scores(self, sample: Sample, visual: Tensor) -> list[float]:
        """Log-probability of each option's letter after the whole prompt with visual tokens [N, D]."""
        model = self.backbone
        before, after = (
            model.embed(torch.tensor([ids], device=model.device))
            for ids in model.split_prompt(self._text(sample, listed=True))
        )
        prompt = torch.cat([before, visual[None].to(model.dtype), after], dim=1)
        hidden = model.llm(prompt, use_cache=False).last_hidden_state
        letters = model.next_token_ids(self.answers.prompt.answer_start, LETTERS[: len(sample.options)])
        return model.logits(hidden[0, -1:]).cpu()[0].log_softmax(-1)[letters].tolist()


@dataclass
class Run:
    """A finished run of a point.

    Attributes:
        seconds: wall clock, from its configuration to its metrics.
        kinds: seconds by kind of work; their sum is `seconds`.
        records: by sample.
    """

    seconds: float
    kinds: dict[str, float]
    records: dict[str, dict[str, Any]]


def run_point(
    bench: Bench, config: DictConfig, evaluator: type[Evaluator], store: FeatureStore, fresh: bool = False
) -> Run:
    """Run a point as job=evaluate does.

    Args:
        config: of the point; its folder must not hold it yet.
        evaluator: Measured or Alone.
        store: of features.
        fresh: load the model anew; its time counts.
    """
    kinds: dict[str, float] = defaultdict(float)
    evaluators: list[Evaluator] = []

    def load(_: Point) -> Backbone:
        with clock(kinds, LOAD):
            return bench.load() if fresh else bench.backbone

    def make(*parts: Any) -> Evaluator:
        evaluators.append(evaluator(*parts))
        return evaluators[0]

    def run() -> Outcome:
        torch.manual_seed(int(config.seed))
        point = Point(config)
        point.store = store
        return evaluate_point(point, partial(answer_with_weights, point, load=load, kind=make))

    with contextlib.redirect_stdout(io.StringIO()):  # hides the point's own progress bar
        seconds, outcome = timed(run)
    kinds |= evaluators[0].seconds
    kinds[OTHER] = seconds - sum(kinds.values())
    records = read_records(Path(outcome.folder) / "records.jsonl")
    return Run(seconds, dict(kinds), {str(record["id"]): record for record in records})


def compare(left: Mapping[str, Mapping[str, Any]], right: Mapping[str, Mapping[str, Any]], slack: float) -> dict:
    """Compare two runs' records.

    Args:
        slack: tolerance of options' log-probabilities; between options this close, the prediction is rounding.

    Returns:
        compared, max_difference of options' log-probabilities, and ties: samples with different predictions, between
        options within slack of each other.

    Raises:
        AssertionError: samples, predictions or log-probabilities differ, i.e. sharing changed results.
    """
    if left.keys() != right.keys():
        raise AssertionError("the two ways did not answer the same samples")
    largest, ties = 0.0, 0
    for name, record in left.items():
        other = right[name]
        scores = record["option_logprobs"]
        difference = max(abs(a - b) for a, b in zip(scores, other["option_logprobs"], strict=True))
        largest = max(largest, difference)
        if difference > slack:
            raise AssertionError(f"{name}: log-probabilities of options differ by {difference:.4f}")
        if record["prediction"] != other["prediction"]:
            first, second = (record["options"].index(one["prediction"]) for one in (record, other))
            if abs(scores[first] - scores[second]) > slack:
                predictions = f"predicted {record['prediction']!r} one way and {other['prediction']!r} the other"
                raise AssertionError(f"{name}: {predictions}")
            ties += 1
    return {"compared": len(left), "max_difference": largest, "ties": ties}


class Floor:
    """The least work of a sweep: each frame decoded and encoded once, and the model's work of each point.

    Without the program around it: no result files, no Lightning loops, no records.

    Args:
        backbone: the model.
        point: any of the sweep; they share benchmark, prompt, reader and batch limits.

    Attributes:
        before: token ids before the visual tokens.
        questions: token ids of each question, by clip.
    """

    def __init__(self, backbone: Backbone, point: Point) -> None:
        self.backbone, self.reader = backbone, str(point.config.job.reader)
        self.clips = group_by_clip(point.benchmark.samples)
        prompts = [
            [
                backbone.split_prompt(point.prompt.text(s.question, s.options, backbone.image_token))
                for s in clip.samples
            ]
            for clip in self.clips
        ]
        self.before = prompts[0][0][0]
        self.questions = [[after for _, after in row] for row in prompts]
        self._features: list[dict[int, Tensor]] = [{} for _ in self.clips]
        self._indices: dict[int, list[list[int]]] = {}  # by number of frames, then clip

    def choose(self, samplers: Sequence[Sampler]) -> int:
        """Choose frames by each sampler. Returns their number over all clips, each frame counted once."""
        infos = [(job, self._open(job).info) for job in self.clips]
        for sampler in samplers:
            self._indices[sampler.num] = [sampler.indices(i, job.start, job.end, job.name) for job, i in infos]
        return sum(map(len, self._unions()))

    def _open(self, job: ClipJob) -> Clip:
        return open_clip(job.clip, self.reader, job.fps)

    def _unions(self) -> list[list[int]]:
        """All chosen frames of each clip."""
        return [sorted(set().union(*chosen)) for chosen in zip(*self._indices.values(), strict=True)]

    def decode(self) -> None:
        """Decode all chosen frames, in one go per clip."""
        for job, union in zip(self.clips, self._unions(), strict=True):
            self._open(job).frames(union)

    def encode(self, frames: int) -> dict[str, float]:
        """Preprocess and encode the frames that this number of frames adds; seconds by kind of work, {} if none.

        Their decoding does not count, because decode() measures it.
        """
        seconds: dict[str, float] = {}
        for job, chosen, features in zip(self.clips, self._indices[frames], self._features, strict=True):
            if new := sorted(set(chosen) - features.keys()):
                images = self._open(job).frames(new)
                with clock(seconds, "preprocess"):
                    pixels = self.backbone.preprocess(images)
                with clock(seconds, "vision"):
                    encoded = self.backbone.features(pixels).cpu()
                features.update(zip(new, encoded, strict=True))
        return seconds

    @torch.inference_mode()
    def answer(self, point: Point) -> dict[str, float]:
        """Pool and read all clips for a point, in the program's batch sizes; seconds by kind of work."""
        seconds: dict[str, float] = {}
        model, chosen = VideoLM(self.backbone, point.pooling, point.stage), self._indices[point.sampler.num]
        size = clips_at_once(point.config.job, point.visual_tokens)
        for first in range(0, len(self.clips), size):
            places = range(len(self.clips))[first : first + size]
            with clock(seconds, "pool"):
                clips = [torch.stack([self._features[place][i] for i in chosen[place]]) for place in places]
                tokens = model.visual_tokens(torch.stack(clips).to(self.backbone.device, self.backbone.dtype))
            with clock(seconds, "prefill"):
                prefix = prefill(self.backbone, self.before, tokens)
            with clock(seconds, "questions"):
                next_token_logits(self.backbone, prefix, [self.questions[place] for place in places])
        return seconds
