"""Points run for their time: with sharing, with none, and at their floor, the least possible work."""

import contextlib
import io
import statistics
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
from videopool.evaluation.evaluator import Asked, Evaluator, answer_with_weights, likeliest
from videopool.evaluation.records import sample_fields
from videopool.evaluation.run import evaluate_point
from videopool.features import ClipJob, FeatureStore
from videopool.inference.read_plan import clips_at_once, group_by_clip
from videopool.models import Backbone, ModelShape, VideoLM, prefill_flops
from videopool.models.reading import next_token_logits, prefill
from videopool.points.point import Point
from videopool.results import read_records
from videopool.runtime.outcome import Outcome
from videopool.speed.bench import Bench, Line
from videopool.speed.timing import clock, in_turn, timed
from videopool.video import Clip, open_clip

LOAD, OTHER = "load", "other"
READING_LLM = ("prefill", "questions", "whole prompts")
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
                records[sample.id] = {**sample_fields(sample), **outcome, **place}
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
        letters = model.next_token_ids(self.prompt.answer_start, LETTERS[: len(sample.options)])
        return model.logits(hidden[0, -1:]).cpu()[0].log_softmax(-1)[letters].tolist()


@dataclass
class Run:
    """A finished run of a point."""

    seconds: float  # wall clock, from its configuration to its metrics
    kinds: dict[str, float]  # seconds by kind of work; their sum is `seconds`
    point: Point
    records: dict[str, dict[str, Any]]  # by sample


def run_point(
    bench: Bench, config: DictConfig, evaluator: type[Evaluator], store: FeatureStore, fresh: bool = False
) -> Run:
    """Run a point as job=evaluate does; its folder must not hold it yet. `fresh` loads the model anew."""
    kinds: dict[str, float] = {}
    evaluators: list[Evaluator] = []

    def load(_: Point) -> Backbone:
        with clock(kinds, LOAD):
            return bench.load() if fresh else bench.backbone

    def make(*parts: Any) -> Evaluator:
        evaluators.append(evaluator(*parts))
        return evaluators[0]

    def run() -> tuple[Point, Outcome]:
        torch.manual_seed(int(config.seed))
        point = Point(config)
        point.store = store
        return point, evaluate_point(point, partial(answer_with_weights, point, load=load, kind=make))

    with contextlib.redirect_stdout(io.StringIO()):  # hides the point's own progress bar
        seconds, (point, outcome) = timed(run)
    kinds |= evaluators[0].seconds
    kinds[OTHER] = seconds - sum(kinds.values())
    records = read_records(Path(outcome.folder) / "records.jsonl")
    return Run(seconds, kinds, point, {str(record["id"]): record for record in records})


def compare(left: Mapping[str, Mapping[str, Any]], right: Mapping[str, Mapping[str, Any]], slack: float) -> dict:
    """Compare two runs' records, with a tolerance of options' log-probabilities.

    Returns compared, max_difference of log-probabilities, and ties: different predictions, between options within slack
    of each other. Raises AssertionError for other differences, because then sharing changed results.
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

    Without the program around it: no result files, no Lightning loops, no records. The points differ in poolings and
    samplers alone.
    """

    def __init__(self, backbone: Backbone, points: Sequence[Point]) -> None:
        point, self.backbone = points[0], backbone
        self.clips, self.reader = group_by_clip(point.benchmark.samples), str(point.config.job.reader)

        def split(sample: Sample) -> tuple[list[int], list[int]]:
            return backbone.split_prompt(point.prompt.text(sample.question, sample.options, backbone.image_token))

        prompts = [[split(sample) for sample in clip.samples] for clip in self.clips]
        self.before = prompts[0][0][0]  # token ids before the visual tokens
        self.questions = [[after for _, after in row] for row in prompts]  # token ids of each question, by clip
        infos = [(job, self._open(job).info) for job in self.clips]
        self._indices = {  # by number of frames, then clip
            own.sampler.num: [own.sampler.indices(info, job.start, job.end, job.name) for job, info in infos]
            for own in points
        }
        self.frames = [sorted(set().union(*chosen)) for chosen in zip(*self._indices.values(), strict=True)]  # by clip
        self._features: list[dict[int, Tensor]] = [{} for _ in self.clips]

    def _open(self, job: ClipJob) -> Clip:
        return open_clip(job.clip, self.reader, job.fps)

    def decode(self) -> None:
        """Decode all frames of the sweep, in one go per clip."""
        for job, frames in zip(self.clips, self.frames, strict=True):
            self._open(job).frames(frames)

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


def token_ratio(prefix: int, questions: Sequence[int]) -> float:
    """Positions without a shared prefix over those with one: sum(P + q) / (P + sum(q)) for prefix P, questions q."""
    return sum(prefix + size for size in questions) / (prefix + sum(questions))


def shared_share(shape: ModelShape, prefix: int, questions: Sequence[int]) -> float:
    """Share of the language model's operations (prefill_flops) that remains once a clip's prefix P is read once.

    A question of q positions then costs the operations of P + q positions less those of P.
    """
    alone = [prefill_flops(shape, prefix + size) for size in questions]
    once = prefill_flops(shape, prefix)
    return (once + sum(prompt - once for prompt in alone)) / sum(alone)


def one_point(bench: Bench, line: Line) -> dict[str, Any]:
    """Part a: seconds per sample of a point by kind of work, with nothing kept; by likelihood, and generating."""
    job, count = bench.config.job, int(bench.config.job.repeats)
    step = line("one point", 2 * (count + 1))
    entry: dict[str, Any] = {}
    for scoring in ("likelihood", "generate"):
        runs = []
        for number in range(count + 1):
            config = bench.point(f"a-{scoring}-{number}", job.one.pooling, job.one.frames, scoring=scoring)
            runs.append(run_point(bench, config, Measured, FeatureStore()))
            step()
        run = sorted(runs[1:], key=lambda run: run.seconds)[count // 2]  # the first run warms up
        samples, point = len(run.records), run.point
        entry |= {"pooling": point.pooling.label, "frames": point.sampler.num, "visual_tokens": point.visual_tokens}
        entry[scoring] = {
            "samples": samples,
            "seconds_per_sample": run.seconds / samples,
            "by_kind": {kind: spent / samples for kind, spent in run.kinds.items()},
        }
    return entry


def prefix(bench: Bench, line: Line) -> dict[str, Any]:
    """Part d: seconds of the language model with a shared prefix and without, by number of questions per clip.

    Both ways read one clip at a time and keep features, so that only the prefix differs.
    """
    job, count = bench.config.job, int(bench.config.job.repeats)
    step = line("shared prefixes", len(job.asked) * (count + 1))
    store, rows = bench.store("prefix"), []
    for asked in job.asked:
        seconds: dict[str, list[float]] = {"shared": [], "alone": []}
        for number in range(count + 1):
            works = {}
            for way, evaluator in (("shared", Measured), ("alone", Alone)):
                study = f"d-{asked}-{number}-{way}"
                config = bench.point(study, job.prefix.pooling, job.prefix.frames, asked, max_clips=1)
                config.benchmark.limit = asked * int(job.prefix.clips)  # the questions of one clip follow each other
                works[way] = partial(run_point, bench, config, evaluator, store)
            runs = in_turn(works, number)
            if number:  # the first round warms up and fills the store
                for way, run in runs.items():
                    seconds[way].append(sum(run.kinds.get(kind, 0.0) for kind in READING_LLM))
            step()
        point = runs["shared"].point
        floor = Floor(bench.backbone, [point])
        length = len(floor.before) + point.visual_tokens
        sizes = [[len(ids) for ids in questions] for questions in floor.questions]
        shared, alone = (statistics.median(spent) for spent in seconds.values())
        allowed = statistics.mean(token_ratio(length, own) for own in sizes)
        rows.append({
            "questions": asked, "visual_tokens": point.visual_tokens, "prefix_tokens": length,
            "question_tokens": statistics.mean(size for own in sizes for size in own),
            "shared_seconds": shared, "alone_seconds": alone,
            "ratio": alone / shared, "allowed_ratio": allowed, "share_reached": alone / shared / allowed,
            "agreement": compare(runs["shared"].records, runs["alone"].records, SLACK[bench.size["dtype"]]),
        })  # fmt: skip
    return {"rows": rows}
