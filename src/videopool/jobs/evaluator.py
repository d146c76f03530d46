"""Evaluation through the LightningModule: clips in, records out."""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from videopool.benchmarks import Prompt, Sample
from videopool.benchmarks.scoring import LETTERS
from videopool.features import (
    ClipJob,
    ClipKey,
    FeatureStore,
    FrameSource,
    LoadedClip,
    LoadPlan,
    View,
    frames_of,
    in_order,
    read_again,
)
from videopool.jobs.sample_records import about, failed_record, read_answer, score_of
from videopool.models import Backbone, VideoLM
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


class Evaluator(VideoLM):
    """A VideoLM that answers a benchmark's questions.

    Args:
        answers: how questions are put and answers drawn.
        store: where features of frames are kept.
        plan: how clips are read.
        source: how features are made of them.

    Attributes:
        seconds: spent so far, by kind of work.
        frames: decoded so far, and frames whose features came from the store.
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
        super().__init__(backbone, pooling, stage)
        self.answers = answers
        self.store = store
        self.plan = plan
        self.source = source
        self.seconds: dict[str, float] = defaultdict(float)
        self.frames = Counter(frames_decoded=0, frames_from_store=0)

    @contextmanager
    def clock(self, kind: str) -> Iterator[None]:
        """Add the time of a block to self.seconds."""
        started = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - started

    def transfer_batch_to_device(
        self, batch: Sequence[LoadedClip], device: torch.device, dataloader_idx: int
    ) -> Sequence[LoadedClip]:
        """Leave clips where they are: the backbone takes frames to its device a chunk at a time."""
        return batch

    def cpu(self) -> "Evaluator":
        """Leave the weights on their device when a point is done: the next point uses them there."""
        return self

    def features(self, clip: LoadedClip) -> Tensor:
        """Tower features [T, C + H*W, Dv] of a clip's views: kept ones, and new ones encoded now.

        They are in the model's dtype, on the CPU.

        Raises:
            UnreadableClipError: kept views are gone, and the clip cannot be read again.
        """
        key = ClipKey(self.source, clip.digest)
        with self.clock("store"):
            if clip.state is not None and clip.info is not None:
                self.store.remember(clip.state, clip.digest, clip.info)
            found = self.store.get(key, clip.views)
        self.frames["frames_from_store"] += _frames(found)
        if clip.pixels is not None:
            self.frames["frames_decoded"] += _frames(clip.encoded)
            new = [place for place, view in enumerate(clip.encoded) if view not in found]
            if new:
                found |= self._encode(key, [clip.encoded[place] for place in new], clip.pixels[new])
        # What the store had when the clips were looked up may be damaged, or have made room for others.
        gone = in_order(set(clip.views) - found.keys())
        if gone:
            self.frames["frames_decoded"] += _frames(gone)
            found |= self._encode(key, gone, read_again(self.plan, clip, gone, self.seconds))
        return torch.stack([found[view].to(self.backbone.dtype) for view in clip.views])

    def _encode(self, key: ClipKey, views: Sequence[View], pixels: Tensor) -> dict[View, Tensor]:
        """Features of views by their pixels [M, 3, S, S], kept, and rounded as the store rounds."""
        with self.clock("vision"):
            encoded = self.backbone.features(pixels).cpu()
        with self.clock("store"):
            return self.store.put(key, dict(zip(views, encoded, strict=True)))

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
                        **about(sample),
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
                        "score": score_of(sample, sample.options[choice] == sample.answer),
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
                row_outcomes.append(read_answer(sample, text, self.answers.prompt, self.answers.parsing))
            outcomes.append(row_outcomes)
        return outcomes


def _frames(views: Iterable[View]) -> int:
    """How many frames some views of a clip show."""
    return len(set().union(*map(frames_of, views)))
