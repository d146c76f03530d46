"""Which examples each optimiser step sees, and loading them ahead of the model.

A step's examples depend on the seed and the step's number alone, so that a run can go on anywhere. They are read in
micro-batches, which are numbered through the run and dealt out to devices in turn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import Dataset, Sampler

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
from videopool.training_data import (
    ConversationError,
    ConversationLayout,
    EncodedConversation,
    Example,
    Mixture,
    encode_conversation,
)

HELD_OUT = "held out"  # stands for the epoch of validation


@dataclass(frozen=True)
class Lesson:
    """An example as the model reads it in one epoch.

    Attributes:
        example: the conversation.
        encoded: its token ids and labels.
        epoch: that it is shown in; with the example's id it seeds random frames.
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
class MicroBatch:
    """Lessons that are read together.

    Attributes:
        number: in the run; seeds dropout.
        step_tokens: labelled tokens of the whole optimiser step, on all devices.
        clips: one a lesson, which is the one sample of its job.
    """

    number: int
    step_tokens: int
    clips: list[LoadedClip]


class Encoder:
    """Conversations to token ids, each once.

    Args:
        tokenizer: of the model.
        layout: of conversations.
        places: the token that stands for visual tokens, by kind of medium.
        limits: the most tokens of a conversation, by kind of medium.

    Attributes:
        refused: why examples cannot be used, a line each.
        cut: ids of examples that lost text at their end.
    """

    def __init__(
        self, tokenizer: Any, layout: ConversationLayout, places: dict[str, str], limits: dict[str, int]
    ) -> None:
        self.tokenizer, self.limits = tokenizer, limits
        self.layouts = {kind: replace(layout, clip=word) for kind, word in places.items()}
        self.refused: dict[str, str] = {}
        self.cut: set[str] = set()
        self._kept: dict[str, EncodedConversation | None] = {}

    def __call__(self, example: Example) -> EncodedConversation | None:
        """Ids and labels; None if nothing can be learned from the example."""
        key = example.where
        if key not in self._kept:
            self._kept[key] = self._encode(example)
        return self._kept[key]

    def _encode(self, example: Example) -> EncodedConversation | None:
        try:
            layout, limit = self.layouts[example.kind], self.limits[example.kind]
            encoded = encode_conversation(example.conversation, self.tokenizer, limit, layout)
        except ConversationError as error:
            self.refused[example.where] = f"{example.where}: {error}"
            return None
        if encoded.lost:
            self.cut.add(example.where)
        return encoded


@dataclass(frozen=True)
class Schedule:
    """Steps of a run, and what each sees.

    Attributes:
        mixture: of training examples.
        encoder: examples to ids.
        steps: of the optimiser.
        batch: examples in a step.
        micro: examples read together; divides batch.
    """

    mixture: Mixture
    encoder: Encoder
    steps: int
    batch: int
    micro: int

    @property
    def micros(self) -> int:
        """Micro-batches of a step."""
        return self.batch // self.micro

    def lessons(self, first: int, count: int) -> list[Lesson]:
        """Lessons at places of the stream; examples that cannot be used are left out."""
        found = []
        for place in range(first, first + count):
            epoch, example = self.mixture.at(place)
            encoded = self.encoder(example)
            if encoded is not None:
                found.append(Lesson(example, encoded, epoch))
        return found

    def step_tokens(self, step: int) -> int:
        """Labelled tokens of a step's examples."""
        return sum(lesson.encoded.learned for lesson in self.lessons(step * self.batch, self.batch))

    def micro_batch(self, number: int) -> list[Lesson]:
        """Lessons of one micro-batch."""
        return self.lessons(number * self.micro, self.micro)


@dataclass(frozen=True)
class Request:
    """A micro-batch to load, with what the store knew of its clips."""

    number: int
    step_tokens: int
    clips: Sequence[ClipRequest]


class Asking:
    """Asks the store about clips; plans and sources are by the kind of their medium."""

    def __init__(self, plans: dict[str, LoadPlan], store: FeatureStore, sources: dict[str, FrameSource]) -> None:
        self.plans, self.store, self.sources = plans, store, sources

    def __call__(self, lesson: Lesson) -> ClipRequest:
        kind = lesson.example.kind
        return request_clip(lesson.job, self.plans[kind], self.store, self.sources[kind])


class TrainingRequests(Sampler[Request]):
    """Requests of one device from a step on, in order.

    They are made when they are sent to a loader, so that nothing is decoded that the run itself has kept.
    """

    def __init__(self, schedule: Schedule, asking: Asking, first_step: int, rank: int, world: int) -> None:
        self.schedule, self.asking = schedule, asking
        self.numbers = range(first_step * schedule.micros + rank, schedule.steps * schedule.micros, world)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Request]:
        step, tokens = -1, 0
        for number in self.numbers:
            if number // self.schedule.micros != step:
                step = number // self.schedule.micros
                tokens = self.schedule.step_tokens(step)
            yield Request(number, tokens, [self.asking(lesson) for lesson in self.schedule.micro_batch(number)])


class HeldOutRequests(Sampler[Request]):
    """Requests of one device for the held-out examples, the same each time; one for nothing where there are none left.

    Lightning wants each device to have a batch.
    """

    def __init__(self, lessons: Sequence[Lesson], asking: Asking, micro: int, rank: int, world: int) -> None:
        self.lessons, self.asking = list(lessons), asking
        self.micro, self.numbers = micro, range(rank, max(world, -(-len(lessons) // micro)), world)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Request]:
        for number in self.numbers:
            chosen = self.lessons[number * self.micro : (number + 1) * self.micro]
            yield Request(number, 0, [self.asking(lesson) for lesson in chosen])


class RequestedBatches(Dataset[MicroBatch]):
    """Loads what is requested; runs in loader processes."""

    def __init__(self, plans: dict[str, LoadPlan]) -> None:
        self.plans = plans

    def __getitem__(self, request: Request) -> MicroBatch:
        clips = [load_clip(one, self.plans[one.job.samples[0].example.kind]) for one in request.clips]
        return MicroBatch(request.number, request.step_tokens, clips)
