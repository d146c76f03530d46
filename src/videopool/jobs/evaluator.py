"""Evaluation through the LightningModule: clips in, records out."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videopool.benchmarks import Prompt, Sample
from videopool.benchmarks.pllava_scoring import check_answer, generated_text, truth_text
from videopool.benchmarks.scoring import LETTERS, exact_match, parse_letter, token_f1
from videopool.features import (
    ClipJob,
    FeatureStore,
    FrameSource,
    LoadedClip,
    LoadPlan,
)
from videopool.jobs.clip_reader import ClipReader
from videopool.models import Backbone
from videopool.models.reading import Prefix, greedy_answers, next_token_logits, prefill
from videopool.pooling import Pooling
from videopool.video import UnreadableClipError


def group_by_clip(samples: Sequence[Sample]) -> list[ClipJob]:
    """Samples that see the same frames together, in the order of their first appearance."""
    groups: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.clip, sample.start, sample.end), []).append(sample)
    return [
        ClipJob(first.clip, first.clip_id, tuple(members), first.start, first.end, first.fps)
        for members in groups.values()
        for first in members[:1]
    ]


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are drawn from the model.

    Attributes:
        prompt: conversation template.
        scoring: of multiple choice, "likelihood" or "generate".
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

    def on_predict_end(self) -> None:
        """Say what went wrong with the store."""
        with self.clock("store"):
            lines = self.store.finish()
        for line in lines:
            print(f"videopool: {line}", file=sys.stderr)

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
            records.update(self._answer([clip for clip, _ in members], torch.stack([seen for _, seen in members])))
        return [records[sample.id] for clip in batch for sample in clip.job.samples]

    def _answer(self, clips: Sequence[LoadedClip], features: Tensor) -> dict[str, dict[str, object]]:
        """Records of clips with equally many frames; features [B, T, C + H*W, Dv]."""
        with self.clock("pool"):
            tokens = self.visual_tokens(features.to(self.backbone.device))
        likelihood = self.answers.scoring == "likelihood"
        chosen: dict[bool, list[list[Sample]]] = {}
        for by_letter in (True, False):
            chosen[by_letter] = [
                [s for s in clip.job.samples if (bool(s.options) and likelihood) is by_letter] for clip in clips
            ]
        records: dict[str, dict[str, object]] = {}
        for by_letter, rows in chosen.items():
            kept = [place for place, row in enumerate(rows) if row]
            if not kept:
                continue
            samples = [rows[place] for place in kept]
            prompts = [[self._prompt(sample) for sample in row] for row in samples]
            before = prompts[0][0][0]
            with self.clock("prefill"):
                prefix = prefill(self.backbone, before, tokens[kept])
            read = self._by_likelihood if by_letter else self._by_answer
            with self.clock("questions" if by_letter else "generate"):
                outcomes = read(prefix, samples, [[after for _, after in row] for row in prompts])
            for place, row, row_outcomes in zip(kept, samples, outcomes, strict=True):
                for sample, outcome in zip(row, row_outcomes, strict=True):
                    records[sample.id] = {
                        **_about(sample),
                        "prompt": self.answers.prompt.hash(bool(sample.options)),
                        "status": "ok",
                        **outcome,
                        "frame_indices": clips[place].indices,
                        "visual_tokens": tokens.shape[1],
                    }
        return records

    def _prompt(self, sample: Sample) -> tuple[list[int], list[int]]:
        text = self.answers.prompt.text(
            sample.question or self.answers.prompt.describe, sample.options, self.backbone.image_token
        )
        return self.backbone.split_prompt(text)

    def _by_likelihood(
        self, prefix: Prefix, samples: Sequence[Sequence[Sample]], questions: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[dict[str, object]]]:
        longest = max(len(sample.options) for row in samples for sample in row)
        letters = self.backbone.next_token_ids(self.answers.prompt.answer_start, LETTERS[:longest])
        outcomes: list[list[dict[str, object]]] = []
        for row, logits in zip(samples, next_token_logits(self.backbone, prefix, questions), strict=True):
            row_outcomes: list[dict[str, object]] = []
            for sample, scores in zip(row, logits.log_softmax(-1)[:, letters].tolist(), strict=True):
                options = scores[: len(sample.options)]
                choice = options.index(max(options))
                row_outcomes.append(
                    {
                        "prediction": sample.options[choice],
                        "score": _score(sample, sample.options[choice] == sample.answer),
                        "option_logprobs": [round(value, 4) for value in options],
                    }
                )
            outcomes.append(row_outcomes)
        return outcomes

    def _by_answer(
        self, prefix: Prefix, samples: Sequence[Sequence[Sample]], questions: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[dict[str, object]]]:
        answers = greedy_answers(self.backbone, prefix, questions, self.answers.max_new_tokens)
        outcomes: list[list[dict[str, object]]] = []
        for row, row_answers in zip(samples, answers, strict=True):
            row_outcomes: list[dict[str, object]] = []
            for sample, ids in zip(row, row_answers, strict=True):
                text = self.backbone.tokenizer.decode(ids, skip_special_tokens=True)
                parsed = self._parse if self.answers.parsing == "strict" else self._parse_as_pllava
                row_outcomes.append(parsed(sample, text))
            outcomes.append(row_outcomes)
        return outcomes

    def _parse(self, sample: Sample, text: str) -> dict[str, object]:
        outcome: dict[str, object] = {"prediction": text.strip()}
        if sample.options:
            place = parse_letter(text, sample.options)
            outcome["parsed"] = None if place is None else sample.options[place]
            right = place is not None and sample.options[place] == sample.answer
        else:
            right = exact_match(text, sample.answer)
            if sample.answer:
                outcome["token_f1"] = token_f1(text, sample.answer)
        return {**outcome, "score": _score(sample, right)}

    def _parse_as_pllava(self, sample: Sample, text: str) -> dict[str, object]:
        prediction = generated_text(text, self.answers.prompt, bool(sample.options))
        if not sample.options:
            return {"prediction": prediction, "score": _score(sample, exact_match(prediction, sample.answer))}
        verdict = check_answer(prediction, truth_text(sample.options, sample.answer)) if sample.answer else None
        followed = verdict is None or verdict.followed
        score = None if verdict is None or verdict.right is None else float(verdict.right)
        return {"prediction": prediction, "parsed": prediction if followed else None, "score": score}


def _score(sample: Sample, right: bool) -> float | None:
    """1 or 0; None where there is no answer to compare with, or where a judge is to compare."""
    return float(right) if sample.answer and not sample.judged else None


def _about(sample: Sample) -> dict[str, object]:
    return {
        "id": sample.id,
        "clip": sample.clip_id,
        "task": sample.task,
        "question": sample.question,
        "options": list(sample.options),
        "answer": sample.answer,
        **({"pair": sample.pair} if sample.pair else {}),
    }


def failed_record(sample: Sample, status: str, reason: str) -> dict[str, object]:
    """The record of a sample that could not be evaluated; it has no score."""
    return {**_about(sample), "status": status, "reason": reason, "prediction": None, "score": None}
