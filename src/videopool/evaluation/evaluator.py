"""Evaluation through the LightningModule: clips in, records out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videopool.benchmarks import Prompt, Sample
from videopool.benchmarks.scoring import LETTERS
from videopool.evaluation.records import about, failed_record, read_answer, score_of
from videopool.features import FeatureStore, FrameSource, LoadedClip, LoadPlan
from videopool.features.rounding import finite
from videopool.inference.reader import ClipReader
from videopool.models import Backbone
from videopool.models.reading import Prefix, continuation_logprobs, greedy_answers, next_token_logits, prefill
from videopool.models.stages import TEXT
from videopool.pooling import Pooling
from videopool.video import UnreadableClipError

NOT_FINITE = "visual tokens with NaN or infinite values: a precision too narrow (model.dtype), or the pooling"
READ_AT_ONCE = 8  # questions, where each reads its clip anew

Asked = tuple[LoadedClip, Sequence[Sample]]  # a clip and questions on it


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are drawn from the model.

    Attributes:
        prompt: conversation template.
        scoring: of multiple choice, "likelihood", "cloze" or "generate".
        max_new_tokens: of generated answers.
        parsing: of generated answers, "strict" or, as PLLaVA's code reads and scores them, "pllava".
    """

    prompt: Prompt
    scoring: str
    max_new_tokens: int
    parsing: str = "strict"


class Evaluator(ClipReader):
    """A VideoLM that answers a benchmark's questions.

    Args:
        answers: how questions are put and answers drawn.
        store, plan, source: as ClipReader takes them.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        stage: str,
        answers: AnswerSettings,
        store: FeatureStore,
        plan: LoadPlan,
        source: FrameSource,
    ) -> None:
        super().__init__(backbone, pooling, stage, store, plan, source)
        self.answers = answers

    @torch.inference_mode()
    def predict_step(self, batch: Sequence[LoadedClip], batch_idx: int = 0) -> list[dict[str, object]]:
        """Records of all questions of some clips, in their order."""
        by_frames: dict[int, list[tuple[LoadedClip, Tensor]]] = defaultdict(list)
        records: dict[str, dict[str, object]] = {}
        for clip in batch:
            for kind, spent in clip.seconds.items():
                self.seconds[kind] += spent
            try:
                if clip.error:
                    raise UnreadableClipError(clip.job.clip, clip.error)
                by_frames[len(clip.views)].append((clip, self.features(clip)))
            except UnreadableClipError as error:
                for sample in clip.job.samples:
                    records[sample.id] = failed_record(sample, "unreadable_video", clip.error or str(error))
        for members in by_frames.values():
            features = torch.stack([seen for _, seen in members])
            rows = [(clip, clip.job.samples) for clip, _ in members]
            if TEXT in self.pooling.needs:
                records.update(self._answer_each(rows, features))
            else:
                records.update(self._answer(rows, features))
        return [{**records[sample.id], "content": clip.digest} for clip in batch for sample in clip.job.samples]

    def _answer_each(self, rows: Sequence[Asked], features: Tensor) -> dict[str, dict[str, object]]:
        """As _answer, where visual tokens depend on the question: each question reads its clip anew."""
        single = [(place, clip, sample) for place, (clip, samples) in enumerate(rows) for sample in samples]
        records: dict[str, dict[str, object]] = {}
        for start in range(0, len(single), READ_AT_ONCE):
            some = single[start : start + READ_AT_ONCE]
            questions = [sample.question or self.answers.prompt.describe for _, _, sample in some]
            text = torch.stack([self.backbone.text_vector(question) for question in questions])
            chosen = features[[place for place, _, _ in some]]
            records.update(self._answer([(clip, [sample]) for _, clip, sample in some], chosen, text))
        return records

    def _answer(
        self, asked: Sequence[Asked], features: Tensor, text: Tensor | None = None
    ) -> dict[str, dict[str, object]]:
        """Records of questions on clips with equally many frames.

        Args:
            asked: a row each.
            features: [B, T, C + H*W, Dv].
            text: [B, D] a prompt a row, where the pooling needs it.
        """
        with self.clock("pool"):
            tokens = self.tokens_of([clip for clip, _ in asked], features, text)
            usable = [place for place, own in enumerate(tokens) if finite(own)]
        records: dict[str, dict[str, object]] = {
            sample.id: failed_record(sample, "not_finite", NOT_FINITE)
            for place, (_, samples) in enumerate(asked)
            if place not in usable
            for sample in samples
        }
        asked, tokens = [asked[place] for place in usable], tokens[usable]
        ways: dict[str, list[list[Sample]]] = {
            way: [[s for s in samples if self._way(s) == way] for _, samples in asked]
            for way in ("likelihood", "cloze", "generate")
        }
        for way, rows in ways.items():
            kept = [place for place, row in enumerate(rows) if row]
            if not kept:
                continue
            samples = [rows[place] for place in kept]
            listed = way != "cloze"
            prompts = [[self._text(sample, listed) for sample in row] for row in samples]
            before, _ = self.backbone.split_prompt(prompts[0][0])
            with self.clock("prefill"):
                prefix = prefill(self.backbone, before, tokens[kept])
            read = {"likelihood": self._by_letter, "cloze": self._by_text, "generate": self._by_answer}[way]
            with self.clock("generate" if way == "generate" else "questions"):
                outcomes = read(prefix, samples, prompts)
            for place, row, row_outcomes in zip(kept, samples, outcomes, strict=True):
                for sample, outcome in zip(row, row_outcomes, strict=True):
                    records[sample.id] = {
                        **about(sample),
                        "prompt": self.answers.prompt.hash(listed and bool(sample.options)),
                        "status": "ok",
                        **outcome,
                        "frame_indices": asked[place][0].indices,
                        "visual_tokens": tokens.shape[1],
                    }
        return records

    def _way(self, sample: Sample) -> str:
        """How the answer to one question is drawn: without options there is nothing to choose from."""
        return self.answers.scoring if sample.options else "generate"

    def _text(self, sample: Sample, listed: bool) -> str:
        """The prompt; listed: with the options, if there are any."""
        question = sample.question or self.answers.prompt.describe
        return self.answers.prompt.text(question, sample.options if listed else (), self.backbone.image_token)

    def _questions(self, prompts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Token ids of each prompt behind the place of the visual tokens."""
        return [[self.backbone.split_prompt(text)[1] for text in row] for row in prompts]

    def _by_letter(
        self, prefix: Prefix, samples: Sequence[Sequence[Sample]], prompts: Sequence[Sequence[str]]
    ) -> list[list[dict[str, object]]]:
        longest = max(len(sample.options) for row in samples for sample in row)
        letters = self.backbone.next_token_ids(self.answers.prompt.answer_start, LETTERS[:longest])
        logits = next_token_logits(self.backbone, prefix, self._questions(prompts))
        return [
            [
                likeliest(sample, scores[: len(sample.options)])
                for sample, scores in zip(row, of_row.log_softmax(-1)[:, letters].tolist(), strict=True)
            ]
            for row, of_row in zip(samples, logits, strict=True)
        ]

    def _by_text(
        self, prefix: Prefix, samples: Sequence[Sequence[Sample]], prompts: Sequence[Sequence[str]]
    ) -> list[list[dict[str, object]]]:
        asked = [
            [self.backbone.continued(text, sample.options) for sample, text in zip(row, texts, strict=True)]
            for row, texts in zip(samples, prompts, strict=True)
        ]
        found = continuation_logprobs(self.backbone, prefix, asked)
        return [
            [likeliest(sample, scores) for sample, scores in zip(row, of_row, strict=True)]
            for row, of_row in zip(samples, found, strict=True)
        ]

    def _by_answer(
        self, prefix: Prefix, samples: Sequence[Sequence[Sample]], prompts: Sequence[Sequence[str]]
    ) -> list[list[dict[str, object]]]:
        answers = greedy_answers(self.backbone, prefix, self._questions(prompts), self.answers.max_new_tokens)
        outcomes: list[list[dict[str, object]]] = []
        for row, row_answers in zip(samples, answers, strict=True):
            row_outcomes: list[dict[str, object]] = []
            for sample, ids in zip(row, row_answers, strict=True):
                text = self.backbone.tokenizer.decode(ids, skip_special_tokens=True)
                row_outcomes.append(read_answer(sample, text, self.answers.prompt, self.answers.parsing))
            outcomes.append(row_outcomes)
        return outcomes


def likeliest(sample: Sample, logprobs: Sequence[float]) -> dict[str, object]:
    """The outcome of a choice by likelihood."""
    choice = max(range(len(logprobs)), key=logprobs.__getitem__)
    return {
        "prediction": sample.options[choice],
        "score": score_of(sample, sample.options[choice] == sample.answer),
        "option_logprobs": [round(value, 4) for value in logprobs],
    }
