"""The LightningModule that is fine-tuned: micro-batches in, gradients of the mean token loss out."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from videopool.features import FeatureStore, FrameSource, LoadedClip, LoadPlan
from videopool.inference.reader import ClipReader
from videopool.models import Backbone
from videopool.models.lora import trainable
from videopool.norms import token_norms
from videopool.pooling import Pooling
from videopool.results import PointFailed
from videopool.training.batches import MicroBatch
from videopool.video import UnreadableClipError

EMA = 0.98  # share of what was before in the mean of the loss
LISTED = 4  # entries that a message names


@dataclass(frozen=True)
class Optimisation:
    """AdamW and its learning rate: a linear warm-up, then half a cosine.

    Attributes:
        steps: of the whole run.
        rate: at its peak.
        warmup: share of the steps.
        floor: share of the peak at the end.
        betas, weight_decay: of AdamW (arXiv 1711.05101).
    """

    steps: int
    rate: float
    warmup: float
    floor: float
    betas: tuple[float, float]
    weight_decay: float

    def at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = round(self.warmup * self.steps)
        if step < warm:
            return self.rate * (step + 1) / warm
        part = (step - warm) / max(1, self.steps - 1 - warm)
        return self.rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * part)))


@dataclass
class StepReport:
    """What is known of an optimiser step when it was taken, over all devices.

    Attributes:
        loss: mean over labelled tokens.
        tokens: labelled ones.
        rate: learning rate.
    """

    loss: float
    tokens: int
    rate: float


class Tuner(ClipReader):
    """A VideoLM whose projector and LoRA are trained; the tower is frozen and never asked twice for a kept frame.

    The gradient of a step is that of the sum of all its token losses over the number of its labelled tokens, however
    the step is cut into micro-batches and dealt out to devices.

    Args:
        plans, sources: how clips are read and features made, by kind of medium.
        image_pooling: of still images, which are clips of one frame; None for the pooling of clips.
        optimisation: of the run.
        seed: of dropout.
        step: that the run begins with or goes on from.
        autocast: the dtype of matrix products where it is not the model's own, None otherwise.
        loaders: give the loaders of training (from a step on) and of validation for a device: (rank, world).

    Attributes:
        failures: clips that could not be read, by example: why.
        ema: moving mean of the loss; None before the first step.
        report: of the last step.
        validation_loss: mean over the held-out tokens, the last time.
        visual_norms: of the held-out clips' visual tokens, means over clips, the last time: `median` of a clip's L2
            norms, and `max_over_median`.
        stopping: whether the user asked to stop.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        stage: str,
        store: FeatureStore,
        plans: dict[str, LoadPlan],
        sources: dict[str, FrameSource],
        image_pooling: Pooling | None,
        optimisation: Optimisation,
        seed: int,
        step: int,
        loaders: Callable[[str, int, int], DataLoader[MicroBatch]],
    ) -> None:
        super().__init__(backbone, pooling, stage, store, plans["video"], sources["video"])
        self.plans, self.sources = plans, sources
        self.image_pooling = image_pooling
        self.optimisation = optimisation
        self.seed = seed
        self.step = step
        self.loaders = loaders
        self.failures: dict[str, str] = {}
        self.ema: float | None = None
        self.report: StepReport | None = None
        self.stopping = False
        self.validation_loss: float | None = None
        self.visual_norms: dict[str, float] | None = None
        self.optimiser_state: dict[str, Any] | None = None  # to go on with
        self._sums = [0.0, 0.0]  # of losses and labelled tokens since the last step, here
        self._planned = 0  # labelled tokens of the step
        self._read: list[str] = []  # entries since the last step, here
        self._held_out = [0.0, 0.0]
        self._norms = [0.0, 0.0, 0.0]  # sums over held-out clips, and how many they are
        self._backward = 0.0

    # What Lightning asks for

    def train_dataloader(self) -> DataLoader[MicroBatch]:
        return self.loaders("train", self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> DataLoader[MicroBatch]:
        return self.loaders("held out", self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [one for one in self.parameters() if one.requires_grad]
        settings = self.optimisation
        optimiser = torch.optim.AdamW(
            parameters, lr=settings.rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state)
        return optimiser

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """What is trained: the rest is the base model's, and is written nowhere."""
        wanted = {f"backbone.model.{name}" for name in trainable(self.backbone)}
        return {name: value for name, value in super().state_dict(*args, **options).items() if name in wanted}

    def on_train_batch_start(self, batch: MicroBatch, batch_idx: int) -> int | None:
        """Lightning leaves the loop for -1."""
        return -1 if self.stopping else None

    def training_step(self, batch: MicroBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the step's loss, times what Lightning divides it by."""
        torch.manual_seed(self.seed * 1_000_003 + batch.number)  # of dropout, whichever device reads the batch
        total, tokens = self.losses(batch)
        if not torch.isfinite(total):
            raise NotFinite("loss", [clip.job.samples[0].example.where for clip in batch.clips], self.step)
        self._read += [clip.job.samples[0].example.where for clip in batch.clips]
        self._sums[0] += float(total.detach())
        self._sums[1] += tokens
        self._planned = batch.step_tokens
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return total * (parts / max(1, batch.step_tokens))

    def on_before_backward(self, loss: Tensor) -> None:
        self._backward = time.perf_counter()

    def on_after_backward(self) -> None:
        self.seconds["backward"] += time.perf_counter() - self._backward

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Count the tokens that were really read, and set the learning rate.

        Raises:
            NotFinite: the gradient would make weights that are no numbers, for which the next batch would be blamed.
        """
        if isinstance(self.trainer.strategy, FSDPStrategy):
            self._average_gradients()
        gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            read = [where for part in gathered(self.trainer, self._read) for where in part]
            raise NotFinite("gradient", read, self.step)
        loss, tokens = self.summed(self._sums)
        if 0 < tokens != self._planned:  # clips could not be read: the mean is over fewer tokens
            for gradient in gradients:
                gradient.mul_(self._planned / tokens)
        rate = self.optimisation.at(self.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        mean = loss / max(1.0, tokens)
        self.ema = mean if self.ema is None else EMA * self.ema + (1 - EMA) * mean
        self.report = StepReport(mean, int(tokens), rate)
        self._sums, self._read = [0.0, 0.0], []
        self.step += 1

    def _average_gradients(self) -> None:
        """Over all devices, of what FSDP leaves whole."""
        for parameter in trainable(self.backbone).values():
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad.div_(self.trainer.world_size)

    def validation_step(self, batch: MicroBatch, batch_idx: int) -> None:
        total, tokens = self.losses(batch, self._look_at)
        self._held_out[0] += float(total)
        self._held_out[1] += tokens

    def on_validation_epoch_end(self) -> None:
        """The mean loss of the held-out tokens, and how large visual tokens are by now."""
        loss, tokens, median, ratio, clips = self.summed([*self._held_out, *self._norms])
        self.validation_loss = loss / tokens if tokens else None
        self.visual_norms = {"median": median / clips, "max_over_median": ratio / clips} if clips else None
        self._held_out, self._norms = [0.0, 0.0], [0.0, 0.0, 0.0]

    def _look_at(self, tokens: Sequence[Tensor]) -> None:
        """Add up norms of each clip's visual tokens [N, D]: their median, and the largest over it."""
        for one in tokens:
            norms = token_norms(one, 2)
            median = float(norms.median())
            if math.isfinite(median) and median > 0:
                parts = (median, float(norms.max()) / median, 1.0)
                self._norms = [a + b for a, b in zip(self._norms, parts, strict=True)]

    def summed(self, values: list[float]) -> list[float]:
        """Over all devices."""
        local = torch.tensor(values, dtype=torch.float64, device=self.device)
        return [float(value) for value in self.trainer.strategy.reduce(local, reduce_op="sum")]

    # What is computed

    def losses(self, batch: MicroBatch, look: Callable[[Sequence[Tensor]], None] | None = None) -> tuple[Tensor, int]:
        """Sum of the token losses of a micro-batch, and how many there are. Clips that cannot be read are left out.

        Args:
            look: is given the visual tokens [N, D] of each clip.
        """
        read: list[tuple[LoadedClip, Tensor]] = []
        for clip in batch.clips:
            for work, spent in clip.seconds.items():
                self.seconds[work] += spent
            lesson = clip.job.samples[0]
            try:
                if clip.error:
                    raise UnreadableClipError(clip.job.clip, clip.error)
                kind = lesson.example.kind
                with self._exactly():
                    read.append((clip, self.features(clip, self.sources[kind], self.plans[kind])))
            except UnreadableClipError as error:
                self.failures[lesson.example.where] = f"{lesson.example.where}: {clip.error or error}"
        if not read:
            # Zero, but with a gradient for each parameter: devices wait for each other's.
            return sum((one.sum() * 0.0 for one in trainable(self.backbone).values()), torch.zeros(())), 0
        with self.clock("pool"):
            tokens = self._visual_tokens(read)
        if look is not None:
            look(tokens)
        encoded = [clip.job.samples[0].encoded for clip, _ in read]
        length = max(len(one.input_ids) for one in encoded)
        pad = self.backbone.tokenizer.pad_token_id or 0
        rows = [one.padded(length, pad) for one in encoded]
        ids, labels, mask = (torch.tensor(column, device=self.backbone.device) for column in zip(*rows, strict=True))
        rounds = None
        if any(one.rounds is not None for one in encoded):
            rounds = torch.tensor([one.padded_rounds(length) for one in encoded], device=self.backbone.device)
        with self.clock("language"):
            losses, _ = self.token_losses(ids, [[one] for one in tokens], mask, labels, rounds)
        return losses.sum(), len(losses)

    def _visual_tokens(self, read: list[tuple[LoadedClip, Tensor]]) -> list[Tensor]:
        """Visual tokens [N, D] of each clip; clips of one kind and one number of frames go together."""
        groups: dict[tuple[str, int], list[int]] = {}
        for place, (clip, seen) in enumerate(read):
            groups.setdefault((clip.job.samples[0].example.kind, len(seen)), []).append(place)
        found: dict[int, Tensor] = {}
        for (kind, _), places in groups.items():
            clips, features = [read[place][0] for place in places], torch.stack([read[place][1] for place in places])
            with self._pooling_of(kind):
                found.update(zip(places, self.tokens_of(clips, features), strict=True))
        return [found[place] for place in range(len(read))]

    @contextmanager
    def _pooling_of(self, kind: str) -> Iterator[None]:
        clips = self.pooling
        if kind == "image" and self.image_pooling is not None:
            self.pooling = self.image_pooling
        try:
            yield
        finally:
            self.pooling = clips

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """Without autocast: features are those that evaluation makes and keeps."""
        with torch.no_grad(), torch.autocast(self.backbone.device.type, enabled=False):
            yield


def gathered(trainer: pl.Trainer, told: Any) -> list[Any]:
    """What each device has to tell."""
    if trainer.world_size == 1:
        return [told]
    found: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, told)
    return found


class NotFinite(PointFailed):
    """The loss or its gradient is not a number.

    Attributes:
        what: "loss" or "gradient".
        where: the entries that were read together; for a gradient, in the whole step on all devices.
        step: that they belong to.
    """

    def __init__(self, what: str, where: list[str], step: int) -> None:
        told = ", ".join(where[:LISTED]) + (f" and {len(where) - LISTED} more" if len(where) > LISTED else "")
        super().__init__(f"the {what} of step {step} is not a finite number; read together were {told}")
        self.what, self.where, self.step = what, list(where), step

    def __reduce__(self) -> tuple[type, tuple[str, list[str], int]]:
        return type(self), (self.what, self.where, self.step)
