"""Which examples each optimiser step sees, and loading them ahead of the model.

A step's examples depend on the seed and the step's number alone, so that a run can continue anywhere. They are read in
micro-batches, which are numbered through the run and dealt out to devices in turn.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

from videopool.features import (
    ClipJob,
    ClipRequest,
    FeatureSource,
    FeatureStore,
    LoadedClip,
    ReadPlan,
    load_clip,
    request_clip,
)
from videopool.inference.predict import loader_of
from videopool.models import Backbone
from videopool.training_data import (
    ConversationError,
    ConversationLayout,
    EncodedConversation,
    Example,
    Mixture,
    encode_conversation,
)

TRAIN, HELD_OUT = "train", "held out"  # HELD_OUT is also the epoch of validation
Clip = TypeVar("Clip", ClipRequest, LoadedClip)


@dataclass(frozen=True)
class EncodedExample:
    """An example as the model reads it in one epoch."""

    example: Example
    encoded: EncodedConversation
    epoch: int | str  # seeds random frames together with the example's id

    @property
    def job(self) -> ClipJob:
        """The clip to read."""
        example = self.example
        return ClipJob(example.media, f"{example.id} in epoch {self.epoch}", (self,), example.start, example.end)


@dataclass
class MicroBatch(Generic[Clip]):
    """Examples that are read together: as requested from a loader process, then as loaded."""

    number: int  # in the run; seeds dropout
    step_tokens: int  # labelled tokens of the whole optimiser step, on all devices
    clips: Sequence[Clip]  # one per example, which is the only sample of its job

    def pin_memory(self) -> "MicroBatch[Clip]":
        """As LoadedClip.pin_memory()."""
        for clip in self.clips:
            if isinstance(clip, LoadedClip):
                clip.pin_memory()
        return self


@dataclass
class Encoder:
    """Encodes conversations to token ids, each once."""

    backbone: Backbone
    layout: ConversationLayout
    limits: dict[str, int]  # most tokens of a conversation, by kind of medium
    refused: dict[str, str] = field(default_factory=dict)  # unusable examples: a line with the reason
    cut: set[str] = field(default_factory=set)  # examples that lost text at their end
    _kept: dict[str, EncodedConversation] = field(default_factory=dict)

    def __call__(self, example: Example) -> EncodedConversation | None:
        """Ids and labels; None if nothing can be learned from the example."""
        where, kind, tokenizer = example.where, example.kind, self.backbone.tokenizer
        if where in self._kept or where in self.refused:
            return self._kept.get(where)
        layout = replace(self.layout, clip=self._place(kind))
        try:
            encoded = encode_conversation(example.conversation, tokenizer, self.limits[kind], layout)
        except ConversationError as error:
            self.refused[where] = f"{where}: {error}"
            return None
        if encoded.lost:
            self.cut.add(where)
        self._kept[where] = encoded
        return encoded

    def around(self, example: Example, texts: tuple[str, str]) -> EncodedConversation:
        """The same labels, with what the model writes before and behind the clip, which is not learned."""
        if (encoded := self(example)) is None:
            raise ValueError(f"{example.where} was refused")
        if not any(texts):
            return encoded
        layout, tokenizer = replace(self.layout, clip=self._place(example.kind)), self.backbone.tokenizer
        plain, longer = (
            encode_conversation(example.conversation, tokenizer, sys.maxsize, one)
            for one in (layout, replace(layout, around=texts))
        )
        more = len(longer.input_ids) - len(plain.input_ids)
        if not example.conversation.independent:
            limit = self.limits[example.kind] + more
            return encode_conversation(example.conversation, tokenizer, limit, replace(layout, around=texts))
        assert longer.rounds is not None
        most = len(encoded.input_ids) + more  # whole rounds may have been left out
        return EncodedConversation(longer.input_ids[:most], longer.labels[:most], encoded.lost, longer.rounds[:most])

    def _place(self, kind: str) -> str:
        """The token that stands for a medium."""
        return str(self.backbone.tokenizer.convert_ids_to_tokens(self.backbone.media_ids[kind]))


@dataclass
class Schedule:
    """The examples of each step of a run."""

    mixture: Mixture
    encoder: Encoder
    steps: int  # of the optimiser
    batch: int  # examples per step
    micro: int  # examples read together; divides batch

    def __post_init__(self) -> None:
        self.micros = self.batch // self.micro  # micro-batches per step
        self.step_tokens = lru_cache(maxsize=1)(self._step_tokens)

    def examples(self, first: int, count: int) -> Iterator[EncodedExample]:
        """Examples at places of the stream, without unusable ones."""
        for place in range(first, first + count):
            epoch, example = self.mixture.at(place)
            if (encoded := self.encoder(example)) is not None:
                yield EncodedExample(example, encoded, epoch)

    def _step_tokens(self, step: int) -> int:
        """Labelled tokens of a step's examples."""
        return sum(one.encoded.learned for one in self.examples(step * self.batch, self.batch))


@dataclass
class Loaders:
    """Makes a device's loaders for training and validation. Plans and sources are by kind of medium."""

    schedule: Schedule
    first: int  # step to begin with
    held_out: Sequence[EncodedExample]  # of validation, the same each time
    plans: dict[str, ReadPlan]
    sources: dict[str, FeatureSource]
    store: FeatureStore
    workers: int  # loader processes, unless the store has all features

    def __call__(self, kind: str, rank: int, world: int) -> DataLoader[MicroBatch[LoadedClip]]:
        """The loader of TRAIN or HELD_OUT for one of `world` devices."""
        schedule = self.schedule
        make, ahead = self._train, self._next_epoch()
        numbers = range(self.first * schedule.micros + rank, schedule.steps * schedule.micros, world)
        if kind == HELD_OUT:
            make, ahead = self._validate, iter(self.held_out)
            # Lightning wants a batch for each device, if an empty one.
            numbers = range(rank, max(world, -(-len(self.held_out) // schedule.micro)), world)
        workers = self.workers if any(self.request(example).must_read for example in ahead) else 0
        return loader_of(LoadedBatches(self.plans), workers, batch_size=None, sampler=Requests(numbers, make))

    def _next_epoch(self) -> Iterator[EncodedExample]:
        schedule = self.schedule
        left = (schedule.steps - self.first) * schedule.batch
        return schedule.examples(self.first * schedule.batch, min(left, schedule.mixture.length(1)))

    def request(self, example: EncodedExample) -> ClipRequest:
        kind = example.example.kind
        return request_clip(example.job, self.plans[kind], self.store, self.sources[kind])

    def _train(self, number: int) -> MicroBatch[ClipRequest]:
        examples = self.schedule.examples(number * self.schedule.micro, self.schedule.micro)
        tokens = self.schedule.step_tokens(number // self.schedule.micros)
        return MicroBatch(number, tokens, [self.request(example) for example in examples])

    def _validate(self, number: int) -> MicroBatch[ClipRequest]:
        examples = self.held_out[number * self.schedule.micro : (number + 1) * self.schedule.micro]
        return MicroBatch(number, 0, [self.request(example) for example in examples])


class Requests(Sampler[MicroBatch[ClipRequest]]):
    """Requests in order, each made when a loader gets it, so that no loader decodes what the run has kept meanwhile."""

    def __init__(self, numbers: range, make: Callable[[int], MicroBatch[ClipRequest]]) -> None:
        self.numbers, self.make = numbers, make

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[MicroBatch[ClipRequest]]:
        return map(self.make, self.numbers)


class LoadedBatches(Dataset[MicroBatch[LoadedClip]]):
    """Loads what is requested, in loader processes; plans are by kind of medium."""

    def __init__(self, plans: dict[str, ReadPlan]) -> None:
        self.plans = plans

    def __getitem__(self, request: MicroBatch[ClipRequest]) -> MicroBatch[LoadedClip]:
        clips = [load_clip(clip, self.plans[clip.job.samples[0].example.kind]) for clip in request.clips]
        return MicroBatch(request.number, request.step_tokens, clips)
