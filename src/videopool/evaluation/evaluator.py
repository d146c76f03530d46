"""Evaluation through the LightningModule: clips in, records out."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from videopool.benchmarks import Sample
from videopool.benchmarks.scoring import LETTERS
from videopool.evaluation.records import (
    UNREADABLE,
    AnswerCost,
    failed_record,
    read_answer,
    sample_fields,
    score_of,
    too_long,
)
from videopool.features import ClipDataset, FeatureSource, LoadedClip, ReadPlan
from videopool.inference.backbones import point_backbone
from videopool.inference.devices import on_devices
from videopool.inference.feature_key import feature_source
from videopool.inference.predict import Share, lines_watched, predict
from videopool.inference.read_plan import clips_at_once, group_by_clip, image_processor_of, read_plan
from videopool.inference.reader import ClipReader
from videopool.models import Backbone
from videopool.models.stages import TEXT
from videopool.models.tower_outputs import tower_outputs
from videopool.points.point import Point
from videopool.points.setting import ORIGINAL
from videopool.pooling import Pooling, PoolingContext, PoolingShapeError, announced, checked
from videopool.reading.answers import (
    continuation_logprobs,
    greedy_answers,
    next_token_logits,
    prefill_clips,
    question_chunk,
)
from videopool.reading.chunks import Chunk
from videopool.reading.layout import Arranged
from videopool.reading.prefix import Prefix, by_question
from videopool.results import RecordLog
from videopool.results.point import TIMES
from videopool.results.records import Times
from videopool.runtime.interrupts import StopRequest
from videopool.runtime.live import Live
from videopool.runtime.progress import progress
from videopool.runtime.ranks import start_method

NOT_FINITE = "visual tokens with NaN or infinite values: a precision too narrow (model.dtype), or the pooling"
READ_AT_ONCE = 8  # questions, where each reads its clip anew

Asked = tuple[LoadedClip, Sequence[Sample]]  # a clip and questions on it
Records = dict[str, dict[str, object]]  # by sample


class Evaluator(ClipReader):
    """A VideoLM that answers the questions of a point's benchmark."""

    # Of a prefix, questions and their continuations, what each continuation is worth.
    worth: Callable[..., list[list[list[Any]]]] = staticmethod(continuation_logprobs)

    def __init__(self, backbone: Backbone, point: Point, plan: ReadPlan, source: FeatureSource) -> None:
        config = point.config
        frames = config.features.get("frames_at_once")
        original = point.positions == ORIGINAL
        super().__init__(
            backbone, point.pooling, point.stage, point.store, plan, source, frames, point.layout, original
        )
        self.benchmark, self.prompt, self.parsing = point.benchmark, point.prompt, config.compat.scoring
        self.pruning = point.pruning
        self.clips_at_once = Chunk(int(config.job.max_clips), "clips")
        self.most_tokens = int(config.job.max_visual_tokens)
        self.questions_anew = Chunk(READ_AT_ONCE, "questions")
        self.cache_bytes: int | None = config.job.get("max_cache_bytes")
        self.questions: Chunk | None = None
        self.pool_bytes: int | None = None
        self.pool_seconds: float | None = None

    def pooled(self, grid: Tensor, context: PoolingContext) -> Tensor:
        if self.pool_bytes is None:
            self.pool_bytes = bytes_of(self.pooling, grid[:1], context.of_clip(0))
            if torch.accelerator.is_available():  # measured once: every batch would wait for the device
                with self.clock("pool once", exact=True):
                    super().pooled(grid[:1], context.of_clip(0))
                self.pool_seconds = sum(self.seconds.pop(kind) for kind in ("pool once", "pool"))
        return super().pooled(grid, context)

    @torch.inference_mode()
    def predict_step(self, batch: Sequence[LoadedClip], batch_idx: int = 0) -> list[dict[str, object]]:
        """Records of all questions of some clips, in their order."""
        alike: dict[tuple[Any, int], list[tuple[LoadedClip, Tensor]]] = defaultdict(list)  # clips in one batch
        records: Records = {}
        for place, (clip, (features, reason)) in enumerate(zip(batch, self.read(batch), strict=True)):
            if features is None:
                records |= {sample.id: failed_record(sample, UNREADABLE, reason) for sample in clip.job.samples}
            else:
                alike[features.shape, place if self.pooling.varies else 0].append((clip, features))
        answer = self._answer_each if TEXT in self.pooling.needs else self._answer

        def answered(members: Sequence[tuple[LoadedClip, Tensor]]) -> Records:
            return answer([(clip, clip.job.samples) for clip, _ in members], torch.stack([own for _, own in members]))

        for members in alike.values():
            try:
                most = self._most(members[0][1])
            except PoolingShapeError as error:  # of a clip that is smaller than others
                unpooled = [sample for clip, _ in members for sample in clip.job.samples]
                records |= {sample.id: failed_record(sample, "not_pooled", str(error)) for sample in unpooled}
                continue
            for own in self.clips_at_once.each(members, answered, most=most):
                records |= own
        return [{**records[sample.id], "content": clip.digest} for clip in batch for sample in clip.job.samples]

    def _most(self, features: Tensor) -> int | None:
        """How many clips with such features [V, H, W, Dv] are read at once, where clips differ in size; None: any.

        Raises PoolingShapeError if such a grid cannot be pooled.
        """
        if not self.backbone.shape.by_clip:
            return None
        tokens = announced(self.pooling, len(features), *self.backbone.grid(features).shape[1:3])
        return max(1, self.most_tokens // max(1, tokens))

    def _answer_each(self, rows: Sequence[Asked], features: Tensor) -> Records:
        """As _answer, for visual tokens that depend on the question: each question reads its clip anew."""
        single = [(place, clip, sample) for place, (clip, samples) in enumerate(rows) for sample in samples]
        records: Records = {}

        def answered(some: Sequence[tuple[int, LoadedClip, Sample]]) -> None:
            text = torch.stack([self.backbone.text_vector(self._question(sample)) for _, _, sample in some])
            chosen = features[[place for place, _, _ in some]]
            records.update(self._answer([(clip, [sample]) for _, clip, sample in some], chosen, text))

        self.questions_anew.each(single, answered)
        return records

    def _answer(self, asked: Sequence[Asked], features: Tensor, text: Tensor | None = None) -> Records:
        """Records of questions on clips with equally many frames.

        Features are [B, T, C + H*W, Dv]; `text`, [B, D], holds one prompt per clip if the pooling needs it.
        """
        clips = self.tokens_of([clip for clip, _ in asked], features, text)
        usable = [samples if good else () for (_, samples), good in zip(asked, finite(clips.states), strict=True)]
        records: Records = {
            sample.id: failed_record(sample, "not_finite", NOT_FINITE)
            for (_, samples), own in zip(asked, usable, strict=True)
            if not own
            for sample in samples
        }
        grids = [
            {"grid": list(self.backbone.grid(own).shape[:3])} if self.backbone.shape.by_clip else {} for own in features
        ]
        limit = self.backbone.shape.context
        for place, sample in ((place, sample) for place, samples in enumerate(usable) for sample in samples):
            if (length := clips.ends[place] + self._text_length(sample, clips, place)) > limit:
                records[sample.id] = too_long(sample, length, limit)
        for mode in ("likelihood", "cloze", "generate"):
            rows = [[s for s in samples if self._mode(s) == mode and s.id not in records] for samples in usable]
            kept = [place for place, row in enumerate(rows) if row]
            if not kept:
                continue
            rows = [rows[place] for place in kept]
            listed = mode != "cloze"
            prompts = [
                [self._text(sample, listed, clips, place) for sample in row]
                for place, row in zip(kept, rows, strict=True)
            ]
            before = [self.backbone.split_prompt(texts[0])[0] for texts in prompts]
            with self.clock("prefill"):
                prefix = prefill_clips(self.backbone, before, clips.of(kept), self.pruning)
            with self.clock("generate" if mode == "generate" else "questions"):
                outputs = self._read(mode, prefix, rows, prompts)
            for place, row, row_outputs in zip(kept, rows, outputs, strict=True):
                for sample, output in zip(row, row_outputs, strict=True):
                    records[sample.id] = {
                        **sample_fields(sample),
                        "prompt": self.prompt.hash(listed and bool(sample.options)),
                        "status": "ok",
                        **self._outcome(mode, sample, output),
                        "frame_indices": asked[place][0].indices,
                        "visual_tokens": clips.lengths[place],
                        **grids[place],
                    }
        return records

    def _mode(self, sample: Sample) -> str:
        """How to draw the answer to one question; without options there is nothing to choose from."""
        return self.benchmark.scoring if sample.options else "generate"

    def _question(self, sample: Sample) -> str:
        return sample.question or self.prompt.describe

    def _text(self, sample: Sample, listed: bool, clips: Arranged, place: int) -> str:
        """The prompt about one of the clips; with `listed`, it lists the sample's options."""
        options, token = sample.options if listed else (), self.backbone.image_token
        return clips.asked(place, self.prompt.text(self._question(sample), options, token), token)

    def _text_length(self, sample: Sample, clips: Arranged, place: int) -> int:
        """Tokens of a prompt without the visual ones, and of the longest answer that is read or may be written."""
        mode = self._mode(sample)
        text = self._text(sample, mode != "cloze", clips, place)
        before, question = self.backbone.split_prompt(text)
        if mode != "cloze":
            return len(before) + len(question) + (self.benchmark.max_new_tokens if mode == "generate" else 0)
        question, rest = self.backbone.continued(text, sample.options)
        return len(before) + len(question) + max(map(len, rest))

    def _read(
        self, mode: str, prefix: Prefix, rows: Sequence[Sequence[Sample]], prompts: Sequence[Sequence[str]]
    ) -> list[list[Any]]:
        """The model's output for each question: log-probabilities of its options, or ids of a generated answer."""
        # Sized once the weights and a first prefix are there.
        self.questions = chunk = self.questions or question_chunk(self.backbone, self.cache_bytes)
        if mode == "cloze":
            texts = [
                [self.backbone.continued(text, sample.options) for sample, text in zip(row, own, strict=True)]
                for row, own in zip(rows, prompts, strict=True)
            ]
            return by_question(self.worth, self.backbone, prefix, texts, chunk)
        questions = [[self.backbone.split_prompt(text)[1] for text in row] for row in prompts]
        if mode == "generate":
            answer = partial(greedy_answers, max_new_tokens=self.benchmark.max_new_tokens)
            return by_question(answer, self.backbone, prefix, questions, chunk)
        longest = max(len(sample.options) for row in rows for sample in row)
        letters = self.backbone.next_token_ids(self.prompt.answer_start, LETTERS[:longest])
        logits = by_question(next_token_logits, self.backbone, prefix, questions, chunk)
        return [[own.log_softmax(-1)[letters].tolist() for own in of_row] for of_row in logits]

    def _outcome(self, mode: str, sample: Sample, output: Sequence[Any]) -> dict[str, object]:
        if mode != "generate":
            return likeliest(sample, output[: len(sample.options)])
        text = self.backbone.tokenizer.decode(output, skip_special_tokens=True)
        return read_answer(sample, text, self.prompt, self.parsing)


def finite(tokens: Tensor) -> list[bool]:
    """Whether each clip's tokens [B, N, D] hold neither infinity nor NaN."""
    if not tokens.numel():
        return [True] * len(tokens)
    extremes = torch.stack(torch.aminmax(tokens.flatten(1), dim=1))  # NaN propagates to both
    return extremes.isfinite().all(0).tolist()


def bytes_of(pooling: Pooling, grid: Tensor, context: PoolingContext) -> int:
    """Most bytes of tensors alive at once while one clip is pooled: its tokens count, grid and context do not."""
    with torch.inference_mode(False), torch.no_grad():  # as inference tensors hide what operations consist of
        own = {name: getattr(context, name).clone() for name in pooling.needs}
        inputs = grid.clone(), replace(context, **own)
        with Live() as live:
            checked(pooling, *inputs)
    return live.peak


def likeliest(sample: Sample, logprobs: Sequence[float]) -> dict[str, object]:
    """Prediction and score of a choice by likelihood."""
    choice = max(range(len(logprobs)), key=logprobs.__getitem__)
    return {
        "prediction": sample.options[choice],
        "score": score_of(sample, sample.options[choice] == sample.answer),
        "option_logprobs": [round(value, 4) for value in logprobs],
    }


def answer_with_weights(
    point: Point,
    missing: Sequence[Sample],
    log: RecordLog,
    stop: StopRequest,
    backbone: Backbone | None = None,
    kind: Callable[..., Evaluator] = Evaluator,
) -> AnswerCost:
    """Append records of samples to the log, answered by a model of this machine: `backbone`, or the process's own.

    Raises PointFailed or DeviceFailed if a process of several devices ended early.
    """
    config = point.config
    devices = min(int(config.trainer.devices), -(-len(group_by_clip(missing)) // _batch(point)))
    if devices == 1 or backbone is not None:
        return _answer(point, missing, log, stop, backbone, kind)
    method = start_method(config)
    if method == "fork":  # which has the weights
        point_backbone(point.model, point.model_identity, point.adapter)
    work = partial(_answer_on, config, missing, log, stop, devices)
    with progress("answering", len(missing)) as advance, lines_watched(log.path, lambda lines: advance(len(lines))):
        costs = on_devices(work, devices, method)
    seconds, counts = Counter[Any](), Counter[Any]()
    for cost in costs:
        seconds.update(cost.seconds)
        counts.update(cost.counts)
    peaks = [cost.pool_bytes for cost in costs if cost.pool_bytes is not None]
    ahead = sum(cost.ahead for cost in costs)
    return AnswerCost(seconds, ahead, counts, max(peaks, default=None), costs[0].pool_seconds)


def _batch(point: Point) -> int:
    """Clips at once, by all clips of the point: a resumed one computes in the sizes of one that was not."""
    return clips_at_once(point.config.job, point.visual_tokens, len(group_by_clip(point.benchmark.samples)))


def _answer_on(
    config: DictConfig, missing: Sequence[Sample], log: RecordLog, stop: StopRequest, devices: int, device: int
) -> AnswerCost:
    """Answer one device's share, in its process."""
    torch.manual_seed(int(config.seed))
    return _answer(Point(config), missing, log, stop, share=(device, devices))


def _answer(
    point: Point,
    missing: Sequence[Sample],
    log: RecordLog,
    stop: StopRequest,
    backbone: Backbone | None = None,
    kind: Callable[..., Evaluator] = Evaluator,
    share: Share = (0, 1),
) -> AnswerCost:
    config = point.config
    backbone = backbone or point_backbone(point.model, point.model_identity, point.adapter)
    processor = image_processor_of(config, backbone)
    plan = read_plan(point.sampler, config.job.reader, processor, point.pooling, together=backbone.together)
    outputs = tower_outputs(point.pooling, backbone.shape, backbone.name)
    source = feature_source(config, backbone, outputs=outputs)
    evaluator = kind(backbone, point, plan, source)
    dataset = ClipDataset(group_by_clip(missing), plan, point.store, source)
    times = Times(log.path.with_name(TIMES))
    predict(config, evaluator, dataset, log, stop, _batch(point), times, share=share)
    seconds = dict(evaluator.seconds)
    # Loader processes decode and preprocess while the model runs: of the elapsed time, only "wait" is theirs.
    ahead = sum(seconds.get(work, 0.0) for work in ("decode", "preprocess")) if int(config.job.workers) else 0.0
    return AnswerCost(seconds, ahead, evaluator.frames, evaluator.pool_bytes, evaluator.pool_seconds)
