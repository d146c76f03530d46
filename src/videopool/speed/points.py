"""Parts a to d of job=speed: points with sharing, with none, and at their floor, the least possible work."""

import contextlib
import io
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from videopool.benchmarks import Sample
from videopool.benchmarks.scoring import LETTERS
from videopool.evaluation.evaluator import Asked, Evaluator, Records, answer_with_weights, likeliest
from videopool.evaluation.records import AnswerCost, sample_fields
from videopool.evaluation.run import evaluate_point
from videopool.features import FeatureStore
from videopool.inference.read_plan import clips_at_once, group_by_clip
from videopool.models import ModelShape, prefill_flops
from videopool.points.point import Point
from videopool.reading.answers import next_token_logits, prefill
from videopool.reading.layout import Arranged
from videopool.reading.module import VideoLM
from videopool.results import read_records
from videopool.results.point import METRICS, read_json
from videopool.speed.bench import Bench, Line
from videopool.speed.timing import clock, timed, turn
from videopool.video import open_clip

LOAD, OTHER = "load", "other"
READING_LLM = ("prefill", "questions", "whole prompts")
READING = ("decode", "preprocess", "vision")
SLACK = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}  # tolerance of options' log-probabilities, by dtype
# Modes of a sweep: nothing shared; everything shared, from an empty store and from one with all frames; the floor.
OFF, COLD, WARM, FLOOR = "off", "cold", "warm", "floor"
NEEDED = {"b": {OFF, COLD, FLOOR}, "c": {COLD, WARM, FLOOR}}
BESIDE = ((OFF,), (COLD, WARM), (FLOOR,))  # which take turns; cold fills the store for warm


class Measured(Evaluator):
    """The program's evaluator; its clock waits for the GPU, so that each kind of work gets its own time."""

    def clock(self, kind: str, exact: bool = True) -> AbstractContextManager[None]:  # type: ignore[override]
        return super().clock(kind, exact=True)


class Alone(Measured):
    """Reads each question with its whole prompt, one after another. For multiple choice only."""

    def _answer(self, asked: Sequence[Asked], features: Tensor, text: Tensor | None = None) -> Records:
        clips = self.tokens_of([clip for clip, _ in asked], features, text)
        records: Records = {}
        for place, (_, samples) in enumerate(asked):
            for sample in samples:
                with self.clock("whole prompts"):
                    scores = self._scores(sample, clips, place)
                records[sample.id] = {**sample_fields(sample), "status": "ok", **likeliest(sample, scores)}
        return records

    def _scores(self, sample: Sample, clips: Arranged, place: int) -> list[float]:
        """Log-probability of each option's letter after the whole prompt with one of the clips."""
        model, text = self.backbone, self._text(sample, True, clips, place)
        before, after = (model.words(torch.tensor([ids], device=model.device)) for ids in model.split_prompt(text))
        prompt = torch.cat([before, clips.row(place)[None].to(model.dtype), after], dim=1)
        hidden = model.read(prompt, positions=clips.within(place, before.shape[1], after.shape[1]))
        letters = model.next_token_ids(self.prompt.answer_start, LETTERS[: len(sample.options)])
        return model.logits(hidden[0, -1:]).cpu()[0].log_softmax(-1)[letters].tolist()


class Run(NamedTuple):
    """A finished run of a point."""

    seconds: float  # wall clock, from its configuration to its metrics
    kinds: dict[str, float]  # seconds by kind of work; their sum is `seconds`
    point: Point
    records: dict[str, dict[str, Any]]  # by sample
    peak: int  # bytes that tensors took on the GPU or, without one, the process


def run_point(
    bench: Bench, config: DictConfig, store: FeatureStore, kind: type[Evaluator] = Measured, fresh: bool = False
) -> Run:
    """Run a point as job=evaluate does; its folder must not hold it yet. `fresh` loads the model anew."""
    kinds, total = dict[str, float](), dict[str, float]()
    if fresh:
        bench.forget()

    def answer(missing: Any, log: Any, stop: Any) -> AnswerCost:
        with clock(kinds, LOAD):
            backbone = bench.backbone
        cost = answer_with_weights(point, missing, log, stop, backbone, kind)
        kinds.update(cost.seconds)
        return cost

    with contextlib.redirect_stdout(io.StringIO()), clock(total, "all"):  # hides the point's own progress bar
        torch.manual_seed(int(config.seed))
        point = Point(config)
        point.store = store
        folder = Path(evaluate_point(point, answer).folder)
    kinds[OTHER] = total["all"] - sum(kinds.values())
    records = {str(record["id"]): record for record in read_records(folder / "records.jsonl")}
    metrics = read_json(folder / METRICS) or {}
    return Run(total["all"], kinds, point, records, metrics.get("device_peak_bytes") or metrics["peak_memory_bytes"])


def compare(left: Mapping[str, Mapping[str, Any]], right: Mapping[str, Mapping[str, Any]], slack: float) -> dict:
    """Compare two runs' records. Raises AssertionError if sharing changed results.

    `ties` are different predictions between options whose log-probabilities are within `slack` of each other.
    """
    if left.keys() != right.keys():
        raise AssertionError("the two ways did not answer the same samples")
    largest, ties = 0.0, 0
    for name, record in left.items():
        other, scores = right[name], record["option_logprobs"]
        difference = max(abs(a - b) for a, b in zip(scores, other["option_logprobs"], strict=True))
        largest = max(largest, difference)
        if difference > slack:
            raise AssertionError(f"{name}: log-probabilities of options differ by {difference:.4f}")
        one, two = record["prediction"], other["prediction"]
        if one != two:
            if abs(scores[record["options"].index(one)] - scores[record["options"].index(two)]) > slack:
                raise AssertionError(f"{name}: predicted {one!r} one way and {two!r} the other")
            ties += 1
    return {"compared": len(left), "max_difference": largest, "ties": ties}


class Floor:
    """The least work of a sweep: each frame decoded and encoded once, and the model's work of each point.

    There are no result files, Lightning loops or records. The points differ in poolings and samplers alone.
    """

    def __init__(self, bench: Bench, points: Sequence[Point]) -> None:
        point, self.bench = points[0], bench
        self.clips, reader = group_by_clip(point.benchmark.samples), str(point.config.job.reader)
        self._open = partial(open_clip, reader=reader)

        def split(sample: Sample) -> tuple[list[int], list[int]]:
            return backbone.split_prompt(point.prompt.text(sample.question, sample.options, backbone.image_token))

        backbone = bench.backbone

        self.before = split(point.benchmark.samples[0])[0]  # token ids before the visual tokens
        self.questions = [[split(sample)[1] for sample in clip.samples] for clip in self.clips]  # token ids, by clip
        infos = [(job, self._open(job.clip).info) for job in self.clips]
        self._indices = {  # by number of frames, then clip
            own.sampler.num: [own.sampler.indices(info, job.start, job.end, job.name) for job, info in infos]
            for own in points
        }
        self.frames = [sorted(set().union(*chosen)) for chosen in zip(*self._indices.values(), strict=True)]  # by clip
        self._features: list[dict[int, Tensor]] = [{} for _ in self.clips]

    def lengths(self, point: Point) -> tuple[int, list[list[int]]]:
        """Positions of a clip's prefix, and of its questions, by clip."""
        return len(self.before) + point.visual_tokens, [[len(ids) for ids in asked] for asked in self.questions]

    def decode(self) -> None:
        """Decode all frames of the sweep, in one go per clip."""
        for job, frames in zip(self.clips, self.frames, strict=True):
            self._open(job.clip).frames(frames)

    def encode(self, frames: int) -> dict[str, float]:
        """Preprocess and encode the frames that this number of frames adds; seconds by kind of work, {} if none.

        Their decoding does not count, because decode() measures it.
        """
        seconds: dict[str, float] = {}
        for job, chosen, features in zip(self.clips, self._indices[frames], self._features, strict=True):
            if new := sorted(set(chosen) - features.keys()):
                images = self._open(job.clip).frames(new)
                with clock(seconds, "preprocess"):
                    pixels = self.bench.backbone.preprocess(images)
                with clock(seconds, "vision"):
                    encoded = self.bench.backbone.features(pixels).cpu()
                features.update(zip(new, encoded, strict=True))
        return seconds

    @torch.inference_mode()
    def answer(self, point: Point) -> dict[str, float]:
        """Pool and read all clips for a point, in the program's batch sizes; seconds by kind of work."""
        seconds, backbone = dict[str, float](), self.bench.backbone
        model, chosen = VideoLM(backbone, point.pooling, point.stage), self._indices[point.sampler.num]
        size = clips_at_once(point.config.job, point.visual_tokens, len(self.clips))
        for first in range(0, len(self.clips), size):
            places = range(len(self.clips))[first : first + size]
            with clock(seconds, "pool"):
                clips = [torch.stack([self._features[place][i] for i in chosen[place]]) for place in places]
                tokens = model.visual_tokens(torch.stack(clips).to(backbone.device, backbone.dtype))
            with clock(seconds, "prefill"):
                prefix = prefill(backbone, self.before, tokens)
            with clock(seconds, "questions"):
                next_token_logits(backbone, prefix, [self.questions[place] for place in places])
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
            runs.append(run_point(bench, config, FeatureStore()))
            step()
        seconds, kinds, point, records, _ = sorted(runs[1:], key=lambda run: run.seconds)[
            count // 2
        ]  # the first warms up
        entry |= {"pooling": point.pooling.label, "frames": point.sampler.num, "visual_tokens": point.visual_tokens}
        entry[scoring] = {
            "samples": len(records),
            "seconds_per_sample": seconds / len(records),
            "by_kind": {kind: spent / len(records) for kind, spent in kinds.items()},
        }
    return entry


def prefix(bench: Bench, line: Line) -> dict[str, Any]:
    """Part d: seconds of the language model with a shared prefix and without, by number of questions per clip.

    Both ways read one clip at a time and keep features, so that only the prefix differs.
    """
    job, count = bench.config.job, int(bench.config.job.repeats)
    step = line("shared prefixes", len(job.asked) * (count + 1))
    store, rows = bench.store("prefix"), []
    evaluators: dict[str, type[Evaluator]] = {"shared": Measured, "alone": Alone}
    for asked in job.asked:
        seconds: dict[str, list[float]] = {way: [] for way in evaluators}
        runs: dict[str, Run] = {}
        for number in range(count + 1):
            for way in turn(list(evaluators), number):
                study = f"d-{asked}-{number}-{way}"
                config = bench.point(study, job.prefix.pooling, job.prefix.frames, asked, max_clips=1)
                config.benchmark.limit = asked * int(job.prefix.clips)  # the questions of one clip follow each other
                runs[way] = run_point(bench, config, store, evaluators[way])
                seconds[way].append(sum(runs[way].kinds.get(kind, 0.0) for kind in READING_LLM))
            step()
        point = runs["shared"].point
        length, sizes = Floor(bench, [point]).lengths(point)
        shared, alone = (statistics.median(spent[1:]) for spent in seconds.values())  # the first fills the store
        allowed = statistics.mean(token_ratio(length, own) for own in sizes)
        rows.append({
            "questions": asked, "visual_tokens": point.visual_tokens, "prefix_tokens": length,
            "question_tokens": statistics.mean(chain.from_iterable(sizes)),
            "shared_seconds": shared, "alone_seconds": alone,
            "ratio": alone / shared, "allowed_ratio": allowed, "share_reached": alone / shared / allowed,
            "agreement": compare(runs["shared"].records, runs["alone"].records, SLACK[bench.size["dtype"]]),
        })  # fmt: skip
    return {"rows": rows}


def sweep(bench: Bench, line: Line, letters: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Parts b and c, of one sweep: poolings x frame counts, each point in the modes that the parts need, side by side.

    Returns the points and their times, in seconds, and an entry per part. Raises AssertionError if two modes disagree
    on a prediction.

    Part b: everything shared against nothing shared. allowed_ratio is the time with nothing shared over its necessary
    rest: one load of the weights, one decoding, preprocessing and encoding of each frame (measured), all pooling, and
    the share of operations of whole prompts that remains if each prefix is read once.

    Part c: the shared sweep against its floor, with an empty store and with a full one. other_seconds_per_point is the
    time of a warm point beside the model's work (configuration, files, loops, records), whatever its samples.
    """
    job, modes = bench.config.job, set[str]().union(*(NEEDED[letter] for letter in letters))
    grid = [(pooling, int(frames)) for pooling in job.poolings for frames in job.frames]
    step = line("a sweep", len(grid))
    floor = Floor(bench, [Point(bench.point(FLOOR, job.poolings[0], frames)) for frames in job.frames])
    run_point(bench, bench.point("warm-up", *grid[0]), FeatureStore())
    store, decoding, rows = bench.store("sweep"), list[float](), list[dict[str, Any]]()
    prompts = 0.0  # seconds of whole prompts that remain if each prefix is read once
    kinds = {mode: Counter[str]() for mode in chain(*BESIDE) if mode in modes}  # seconds
    records: dict[str, dict[str, dict[str, Any]]] = {mode: {} for mode in kinds}
    beside = [[mode for mode in own if mode in modes] for own in BESIDE if modes.intersection(own)]
    for number, (pooling, frames) in enumerate(grid):
        point = Point(bench.point(FLOOR, pooling, frames))
        row: dict[str, Any] = {"frames": frames, "pooling": point.pooling.label, "visual_tokens": point.visual_tokens}
        for mode in chain(*turn(beside, number)):
            if mode == FLOOR:
                # Beside the cold run that reads the same frames, at the same pace of the machine.
                if reading := floor.encode(frames):
                    kinds[FLOOR].update(reading)
                    decoding.append(timed(floor.decode)[0])
                row[FLOOR], spent = timed(partial(floor.answer, point))
            else:
                how = (FeatureStore(), Alone, True) if mode == OFF else (store,)
                row[mode], spent, _, answers, _ = run_point(bench, bench.point(mode, pooling, frames), *how)
                records[mode] |= {f"point {number}, {id}": record for id, record in answers.items()}
            kinds[mode].update(spent)
            if mode == OFF:
                length, sizes = floor.lengths(point)
                shares = [shared_share(bench.backbone.shape, length, own) for own in sizes]
                prompts += spent["whole prompts"] * statistics.mean(shares)
        rows.append(row)
        step()
    kinds[FLOOR].update({"decode": statistics.mean(decoding)})
    seconds = {mode: sum(row[mode] for row in rows) for mode in kinds}
    facts = {
        "points": rows,
        "frames_distinct": sum(map(len, floor.frames)),
        "frames_of_all_points": sum(row["frames"] for row in rows) * len(floor.clips),
        "seconds": seconds,
        "seconds_by_kind": {mode: dict(spent) for mode, spent in kinds.items()},
    }
    agreed = partial(compare, records[COLD], slack=SLACK[bench.size["dtype"]])
    cold, reading, points = seconds[COLD], {kind: kinds[FLOOR][kind] for kind in READING}, len(rows)
    entries: dict[str, dict[str, Any]] = {}
    if "b" in letters:
        off = seconds[OFF]
        pooling = {kind: kinds[OFF][kind] for kind in ("project", "pool")}
        remaining = {LOAD: kinds[OFF][LOAD] / points, **reading, **pooling, "language model": prompts}
        ratio, allowed = off / cold, off / sum(remaining.values())
        entries["b"] = {
            "points": points, "off_seconds": off, "shared_seconds": cold, "remaining_seconds": remaining,
            "ratio": ratio, "allowed_ratio": allowed, "share_reached": ratio / allowed,
            "agreement": agreed(records[OFF]), "wall_seconds": off + cold,
        }  # fmt: skip
    if "c" in letters:
        warm, model, once = seconds[WARM], seconds[FLOOR], sum(reading.values())
        entries["c"] = {
            "floor_reading_seconds": once, "floor_model_seconds": model, "cold_seconds": cold, "warm_seconds": warm,
            "cold_over_floor": cold / (once + model), "warm_over_floor": warm / model,
            "floor_model_seconds_per_point": model / points,
            "other_seconds_per_point": kinds[WARM][OTHER] / points,
            "agreement": agreed(records[WARM]), "wall_seconds": warm + model + once,
        }  # fmt: skip
    return facts, entries
