"""Which examples each optimiser step sees, and loading them ahead of the model.

A step's examples depend on the seed and the step's number alone, so that a run can continue anywhere. They are read in
micro-batches, which are numbered through the run and dealt out to devices in turn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

from videopool.features import (
    ClipJob,
    ClipRequest,
    FeatureStore,
    FrameSource,
    LoadedClip,
    LoadPlan,
    load_clip,
    request_clip,
)
from videopool.runtime.devices import START_METHOD
from videopool.runtime.interrupts import ignore_interrupts
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
    """An example as the model reads it in one epoch.

    Attributes:
        example: the conversation.
        encoded: its token ids and labels.
        epoch: in which it is shown; seeds random frames together with the example's id.
    """

    example: Example
    encoded: EncodedConversation
    epoch: int | str

    @property
    def job(self) -> ClipJob:
        """The clip to read."""
        example = self.example
        return ClipJob(example.media, f"{example.id} in epoch {self.epoch}", (self,), example.start, example.end)


@dataclass
class MicroBatch(Generic[Clip]):
    """Examples that are read together: as requested from a loader process, then as loaded.

    Attributes:
        number: in the run; seeds dropout.
        step_tokens: labelled tokens of the whole optimiser step, on all devices.
        clips: one per example, which is the only sample of its job.
    """

    number: int
    step_tokens: int
    clips: Sequence[Clip]


class Encoder:
    """Encodes conversations to token ids, each once.

    Args:
        tokenizer: of the model.
        layout: of conversations.
        places: the token that stands for visual tokens, by kind of medium.
        limits: most tokens of a conversation, by kind of medium.

    Attributes:
        refused: by unusable example, a line with the reason.
        cut: examples that lost text at their end.
    """

    def __init__(
        self, tokenizer: Any, layout: ConversationLayout, places: dict[str, str], limits: dict[str, int]
    ) -> None:
        self.tokenizer, self.limits = tokenizer, limits
        self.layouts = {kind: replace(layout, clip=word) for kind, word in places.items()}
        self.refused: dict[str, str] = {}
        self.cut: set[str] = set()
        self._kept: dict[str, EncodedConversation] = {}

    def __call__(self, example: Example) -> EncodedConversation | None:
        """Ids and labels; None if nothing can be learned from the example."""
        where, kind = example.where, example.kind
        if where in self._kept or where in self.refused:
            return self._kept.get(where)
        try:
            encoded = encode_conversation(example.conversation, self.tokenizer, self.limits[kind], self.layouts[kind])
        except ConversationError as error:
            self.refused[where] = f"{where}: {error}"
            return None
        if encoded.lost:
            self.cut.add(where)
        self._kept[where] = encoded
        return encoded


class Schedule:
    """The examples of each step of a run.

    Args:
        mixture: of training examples.
        encoder: of their conversations.
        steps: of the optimiser.
        batch: examples per step.
        micro: examples read together; divides batch.
    """

    def __init__(self, mixture: Mixture, encoder: Encoder, steps: int, batch: int, micro: int) -> None:
        self.mixture, self.encoder = mixture, encoder
        self.steps, self.batch, self.micro = steps, batch, micro
        self.micros = batch // micro  # micro-batches per step
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


class Loaders:
    """Makes the loaders of one device, of training and of validation.

    Args:
        schedule: of the training examples.
        first: step to begin with.
        held_out: examples of validation, the same each time.
        plans, sources: how clips are read and features made, by kind of medium.
        store: of features.
        workers: loader processes, unless the store has all features.
    """

    def __init__(
        self,
        schedule: Schedule,
        first: int,
        held_out: Sequence[EncodedExample],
        plans: dict[str, LoadPlan],
        sources: dict[str, FrameSource],
        store: FeatureStore,
        workers: int,
    ) -> None:
        self.schedule, self.first, self.held_out = schedule, first, held_out
        self.plans, self.sources, self.store, self.workers = plans, sources, store, workers

    def __call__(self, kind: str, rank: int, world: int) -> DataLoader[MicroBatch[LoadedClip]]:
        """The loader of TRAIN or HELD_OUT for a device: the rank-th of world."""
        schedule, make = self.schedule, self._train if kind == TRAIN else self._validate
        ahead: Iterable[EncodedExample] = self.held_out
        if kind == TRAIN:
            numbers = range(self.first * schedule.micros + rank, schedule.steps * schedule.micros, world)
            left = (schedule.steps - self.first) * schedule.batch
            ahead = schedule.examples(self.first * schedule.batch, min(left, schedule.mixture.length(1)))
        else:  # Lightning wants a batch for each device, if an empty one
            numbers = range(rank, max(world, -(-len(self.held_out) // schedule.micro)), world)
        workers = self.workers if any(self.request(example).must_read for example in ahead) else 0
        return DataLoader(
            LoadedBatches(self.plans),
            sampler=Requests(numbers, make),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=ignore_interrupts if workers else None,
            multiprocessing_context=START_METHOD if workers else None,
        )

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

    def __init__(self, plans: dict[str, LoadPlan]) -> None:
        self.plans = plans

    def __getitem__(self, request: MicroBatch[ClipRequest]) -> MicroBatch[LoadedClip]:
        clips = [load_clip(clip, self.plans[clip.job.samples[0].example.kind]) for clip in request.clips]
        return MicroBatch(request.number, request.step_tokens, clips)
