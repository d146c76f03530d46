"""The LightningModule that is fine-tuned: micro-batches in, gradients of the mean token loss out."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from videopool.features import LoadedClip
from videopool.inference.reader import ClipReader
from videopool.models import Backbone
from videopool.models.lora import trainable
from videopool.norms import token_norms
from videopool.pooling import Pooling, PoolingShapeError, announced
from videopool.reading.layout import beside
from videopool.results import PointFailed
from videopool.training.batches import HELD_OUT, TRAIN, Loaders, MicroBatch
from videopool.training.checkpoints import TrainingState
from videopool.training.point import TrainingPoint

EMA = 0.98  # decay of the EMA of the loss
LISTED = 4  # entries that a message names
Loaded = MicroBatch[LoadedClip]
Clip = tuple[Tensor, Tensor, tuple[str, str], tuple[Tensor, int]]


@dataclass(frozen=True)
class Optimisation:
    """AdamW (arXiv 1711.05101) and its learning rate: a linear warm-up, then half a cosine."""

    steps: int  # of the whole run
    rate: float  # at its peak
    warmup: float  # share of the steps
    floor: float  # share of the peak at the end
    betas: tuple[float, float]
    weight_decay: float

    def at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = round(self.warmup * self.steps)
        if step < warm:
            return self.rate * (step + 1) / warm
        part = (step - warm) / max(1, self.steps - 1 - warm)
        return self.rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * part)))


class Tuner(ClipReader):
    """A VideoLM whose projector and LoRA are trained; the tower is frozen, and kept features are not computed again.

    A step's gradient is that of the sum of all its token losses over the number of its labelled tokens, however the
    step is cut into micro-batches and dealt out to devices. `progress`, where it begins, is kept up to date.
    """

    def __init__(
        self, backbone: Backbone, point: TrainingPoint, adamw: Optimisation, progress: TrainingState, loaders: Loaders
    ) -> None:
        plan, source = loaders.plans["video"], loaders.sources["video"]
        frames = point.config.features.get("frames_at_once")
        super().__init__(backbone, point.pooling, point.stage, point.store, plan, source, frames, point.layout)
        self.image_pooling, self.loaders = point.image_pooling, loaders
        self.optimisation, self.seed, self.progress = adamw, point.seed, progress
        self.optimiser_state: dict[str, Any] | None = None  # to continue with
        self.stopping = False  # at the user's wish
        # Of a new step, over all devices: loss (mean over labelled tokens), its EMA, learning rate, labelled tokens.
        self.report: dict[str, Any] | None = None
        # Of the last validation: mean loss over the held-out tokens; L2 norms of visual tokens, means over clips of
        # their `median` and `max_over_median`.
        self.validation_loss: float | None = None
        self.visual_norms: dict[str, float] | None = None
        # On this device, since the last step: sums of losses and labelled tokens, the step's labelled tokens, entries.
        self._sums, self._planned, self._read = [0.0, 0.0], 0, list[str]()
        self._held_out = torch.zeros(5, dtype=torch.float64)  # sums: losses, tokens, the two visual norms, clips
        self._backward = 0.0  # when it began

    # Lightning's hooks

    def train_dataloader(self) -> DataLoader[Loaded]:
        return self.loaders(TRAIN, self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> DataLoader[Loaded]:
        return self.loaders(HELD_OUT, self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        settings = self.optimisation
        optimiser = torch.optim.AdamW(
            parameters, lr=settings.rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state)
        return optimiser

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters only; the rest is the base model's and never written."""
        wanted = {f"backbone.model.{name}" for name in trainable(self.backbone)}
        return {name: value for name, value in super().state_dict(*args, **options).items() if name in wanted}

    def on_train_batch_start(self, batch: Loaded, batch_idx: int) -> int | None:
        """Lightning leaves the loop for -1."""
        return -1 if self.stopping else None

    def training_step(self, batch: Loaded, batch_idx: int) -> Tensor:
        """The micro-batch's share of the step's loss, times Lightning's divisor."""
        torch.manual_seed(self.seed * 1_000_003 + batch.number)  # of dropout, whichever device reads the batch
        total, tokens = self.losses(batch)
        entries = [clip.job.samples[0].example.where for clip in batch.clips]
        if not torch.isfinite(total):
            raise NotFinite("loss", entries, self.progress.step)
        self._read += entries
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
        """Scale the gradient to the tokens that were read, set the learning rate, and report the step.

        Raises NotFinite for a gradient that would make NaN weights, for which the next batch would be blamed.
        """
        if isinstance(self.trainer.strategy, FSDPStrategy):
            self._average_gradients()
        gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            read = [where for part in gathered(self.trainer, self._read) for where in part]
            raise NotFinite("gradient", read, self.progress.step)
        loss, tokens = self.summed(self._sums)
        if 0 < tokens != self._planned:  # unreadable clips: the mean is over fewer tokens
            for gradient in gradients:
                gradient.mul_(self._planned / tokens)
        progress, rate, mean = self.progress, self.optimisation.at(self.progress.step), loss / max(1.0, tokens)
        for group in optimizer.param_groups:
            group["lr"] = rate
        progress.step += 1
        progress.ema = mean if progress.ema is None else EMA * progress.ema + (1 - EMA) * mean
        progress.tokens += int(tokens)
        self.report = {"loss": mean, "ema": progress.ema, "rate": rate, "tokens": int(tokens)}
        self._sums, self._read = [0.0, 0.0], []

    def _average_gradients(self) -> None:
        """Over all devices, for parameters that FSDP does not shard."""
        for parameter in trainable(self.backbone).values():
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad.div_(self.trainer.world_size)

    def validation_step(self, batch: Loaded, batch_idx: int) -> None:
        total, tokens = self.losses(batch, self._count_norms)
        self._held_out[:2] += torch.tensor([float(total), tokens], dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Set the mean loss of the held-out tokens and the norms of visual tokens."""
        loss, tokens, median, ratio, clips = self.summed(self._held_out.tolist())
        self.validation_loss = loss / tokens if tokens else None
        self.visual_norms = {"median": median / clips, "max_over_median": ratio / clips} if clips else None
        self._held_out.zero_()

    def _count_norms(self, tokens: Sequence[Tensor]) -> None:
        """Add up, over clips, the median norm of visual tokens [N, D] and the ratio of the largest to it."""
        for one in tokens:
            norms = token_norms(one, 2)
            median = float(norms.median())
            if math.isfinite(median) and median > 0:
                self._held_out[2:] += torch.tensor([median, float(norms.max()) / median, 1.0], dtype=torch.float64)

    def summed(self, values: list[float]) -> list[float]:
        """Sums over all devices."""
        local = torch.tensor(values, dtype=torch.float64, device=self.device)
        return [float(value) for value in self.trainer.strategy.reduce(local, reduce_op="sum")]

    # Computation

    def losses(self, batch: Loaded, look: Callable[[Sequence[Tensor]], None] | None = None) -> tuple[Tensor, int]:
        """Sum and number of a micro-batch's token losses, without unreadable clips; `look` gets the visual tokens."""
        read: list[tuple[LoadedClip, Tensor]] = []
        plans, sources = self.loaders.plans, self.loaders.sources
        examples = [clip.job.samples[0].example for clip in batch.clips]
        # Without autocast: evaluation's features, from the same store.
        with torch.no_grad(), torch.autocast(self.backbone.device.type, enabled=False):
            kinds = [example.kind for example in examples]
            found = self.read(batch.clips, [sources[kind] for kind in kinds], [plans[kind] for kind in kinds])
        for clip, example, (features, reason) in zip(batch.clips, examples, found, strict=True):
            reason = reason or self._unfit(clip, features)
            if features is None or reason:
                self.progress.failures[example.where] = f"{example.where}: {reason}"
            else:
                read.append((clip, features))
        if not read:
            # Zero, but with a gradient for each parameter: devices wait for each other's.
            return sum((one.sum() * 0.0 for one in trainable(self.backbone).values()), torch.zeros(())), 0
        tokens, pooled, texts, places = zip(*self._visual_tokens(read), strict=True)
        if look is not None:
            look(pooled)
        encoder = self.loaders.schedule.encoder
        encoded = [
            encoder.around(clip.job.samples[0].example, own) if any(own) else clip.job.samples[0].encoded
            for (clip, _), own in zip(read, texts, strict=True)
        ]
        length, device = max(len(one.input_ids) for one in encoded), self.backbone.device
        rows = [one.padded(length, self.backbone.tokenizer.pad_token_id or 0) for one in encoded]
        ids, labels, mask = (torch.tensor(column, device=device) for column in zip(*rows, strict=True))
        rounds = None
        if any(one.rounds is not None for one in encoded):
            rounds = torch.tensor([one.padded_rounds(length) for one in encoded], device=device)
        with self.clock("language"):
            three = places if self.backbone.mrope else None
            losses, _ = self.token_losses(ids, [[one] for one in tokens], mask, labels, rounds, three)
        return losses.sum(), len(losses)

    def _pooling_of(self, kind: str) -> Pooling:
        return self.image_pooling if kind == "image" and self.image_pooling is not None else self.pooling

    def _unfit(self, clip: LoadedClip, features: Tensor | None) -> str:
        """Why a clip with a size of its own, features [T, h, w, Dt], cannot be learned from; "" if it can."""
        if features is None or not self.backbone.shape.by_clip:
            return ""
        lesson, shape = clip.job.samples[0], self.backbone.shape
        pooling, size = self._pooling_of(lesson.example.kind), self.grid_size(features)
        try:
            tokens = announced(pooling, *size) + beside(pooling, shape, size, self.layout)
        except PoolingShapeError as error:
            return str(error)
        tokens += len(lesson.encoded.input_ids) - 1
        return "" if tokens <= shape.context else f"{tokens} tokens do not fit the context of {shape.context}"

    def _visual_tokens(self, read: list[tuple[LoadedClip, Tensor]]) -> list[Clip]:
        """Of each clip the entries [L, D], those of visual tokens alone, the texts around them, and their positions.

        Clips of one kind, one number of frames and one size are one batch.
        """
        groups: dict[tuple[str, torch.Size, int], list[int]] = {}
        for place, (clip, features) in enumerate(read):
            kind = clip.job.samples[0].example.kind
            alone = place if self._pooling_of(kind).varies else 0
            groups.setdefault((kind, features.shape, alone), []).append(place)
        tokens: dict[int, Clip] = {}
        pooling = self.pooling
        for (kind, _, _), places in groups.items():
            self.pooling = self._pooling_of(kind)
            batch = torch.stack([read[place][1] for place in places])
            clips = self.tokens_of([read[place][0] for place in places], batch)
            for row, place in enumerate(places):
                visual = self.backbone.main(clips.states[row, clips.at[row].to(clips.states.device)])
                own = clips.states if clips.positions is None else clips.positions
                tokens[place] = clips.row(row), visual, clips.texts[row], (own[row], clips.ends[row])
            self.pooling = pooling
        return [tokens[place] for place in range(len(read))]


def gathered(trainer: pl.Trainer, value: Any) -> list[Any]:
    """Every device's value."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


class NotFinite(PointFailed):
    """The loss or gradient is NaN or infinite; `args`: which, entries read together (on all devices), the step."""

    def __str__(self) -> str:
        what, where, step = self.args
        more = f" and {len(where) - LISTED} more" if len(where) > LISTED else ""
        return f"the {what} of step {step} is not a finite number; read together were {', '.join(where[:LISTED])}{more}"
