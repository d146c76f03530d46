"""One training run, from configuration."""

import os
from collections.abc import Sequence
from functools import cached_property

import torch
from omegaconf import DictConfig

from videopool.config.build import (
    Number,
    Rules,
    build,
    build_pooling,
    check,
    check_logger,
    is_number,
    jsonable,
    plain,
    whole,
)
from videopool.config.errors import ConfigError
from videopool.config.own_code import own_code
from videopool.features import FeatureStore, rounds
from videopool.inference.feature_key import shared_store
from videopool.models import identity
from videopool.models.cost import training_flops
from videopool.models.families import family_of
from videopool.models.lora import check_new_lora
from videopool.models.stages import check_context, check_needs
from videopool.models.tower_changes import tower_changes
from videopool.notes import note
from videopool.points.early import check_machine, check_model
from videopool.points.setting import Setting, readable, refuse_reading
from videopool.pooling import Pooling, announced
from videopool.reading.layout import beside
from videopool.results import fingerprint, without_seed
from videopool.runtime.ranks import on_cpu
from videopool.training_data import ConversationLayout, Example, Mixture, Source, TrainingDataError

EXPORT = "export"
LISTED = 5  # left-out entries of a source
RULES: Rules = {
    ("last", "best"): ("job.export",),
    bool: ("job.evaluate", "training.checkpoint_gradients"),
    whole(0): ("seed", "job.workers", "job.export_every"),
    whole(1): (
        "trainer.devices", "job.checkpoint_every", "training.epochs", "training.global_batch", "training.micro_batch",
        "training.max_text", "training.validation.most", "training.validation.every",
    ),
    whole(1, null=True): ("compat.longest", "training.steps", "features.frames_at_once"),
    Number(0): ("training.rate", "training.weight_decay"),
    Number(0, null=True): ("training.tflops", "training.clip"),
    Number(0, 1): (
        "job.max_failed_fraction", "training.share", "training.warmup", "training.floor", "training.validation.share",
    ),
}  # fmt: skip
NOT_ZERO = {
    "share": "leaves nothing to train on; give a share above 0, at most 1",
    "rate": "trains nothing; give a learning rate above 0",
    "clip": "leaves no gradient; give a norm above 0, or null for any",
}
NOT_IDENTITY = ("micro_batch", "checkpoint_gradients")  # of the group `training`: they change the speed alone
CODE = ("model", "pooling", "job.image_pooling", "frames", "training", "training_data", "features", "trainer")


def note_left_out(lines: Sequence[str]) -> None:
    """Note the first entries that are left out, and the number of others."""
    more = [f"{len(lines) - LISTED} more"] if len(lines) > LISTED else []
    for line in [*lines[:LISTED], *more]:
        note(f"left out: {line}")


class TrainingPoint(Setting):
    """Objects made from one training run's configuration; weights are not loaded. Raises UserError as Point."""

    def __init__(self, config: DictConfig) -> None:
        if "base_url" in config.model:
            raise ConfigError("model=api: the weights of a model behind an API cannot be trained; choose another model")
        super().__init__(config)
        refuse_reading(config, "job=finetune")
        check_logger(config)
        check_model(config)
        self.settings = plain(config.training)
        self._check_numbers()
        if config.lora.checkpoint is not None:
            start = "job=finetune starts from the model as released; say lora=none"
            raise ConfigError(f"lora.checkpoint={config.lora.checkpoint}: {start}")
        if config.job.export == "best" and not self.settings["validation"]["share"]:
            raise ConfigError("job.export=best: there is no validation to say which is (training.validation.share=0)")
        images = config.job.get("image_pooling")
        self.image_pooling: Pooling | None = None if images is None else build_pooling(config.job, "image_pooling")
        for pooling in self.poolings.values():
            if next(pooling.parameters(), None) is not None:
                raise ConfigError(f"pooling: {pooling.label} has weights of its own, which job=finetune does not train")
        self.conversation_layout: ConversationLayout = build(config.training, "layout")
        self.model_identity = identity(self.model["source"], self.model["revision"], target=self.model.get("_target_"))
        self.store: FeatureStore = shared_store(config)
        self.seed = int(config.seed)
        self.fitted = not self.begun(f"{self.model['name']} tuned", *self.parts[:2])
        if self.fitted:
            self.fit()

    def _check_numbers(self) -> None:
        config, settings = self.config, self.settings
        check(config, RULES)
        if not isinstance(settings["layout"], dict):
            raise ConfigError(f"training.layout={settings['layout']!r}: give a layout of conversations")
        if None not in (settings["tflops"], settings["steps"]):
            raise ConfigError("training.steps and training.tflops: give one of them, the other follows from it")
        for key, meaning in NOT_ZERO.items():
            if settings[key] == 0:
                raise ConfigError(f"training.{key}=0 {meaning}")
        betas = settings["betas"]
        valid = isinstance(betas, list) and all(is_number(beta) and 0 <= beta < 1 for beta in betas)
        if not valid or len(betas) != 2:
            raise ConfigError(f"training.betas={betas!r}: give two numbers in 0..1, 1 left out, as in [0.9,0.98]")
        batch, micro = settings["global_batch"], settings["micro_batch"]
        if batch % (micro * config.trainer.devices):
            parts = f"training.micro_batch={micro} times trainer.devices={config.trainer.devices}"
            raise ConfigError(f"training.global_batch={batch} is not a multiple of {parts}")
        if config.trainer.get("precision") not in (None, "32-true", "bf16-mixed"):
            right = "training takes null, 32-true or bf16-mixed; frozen weights in bfloat16 are model.dtype=bfloat16"
            raise ConfigError(f"trainer.precision={config.trainer.precision}: {right}")

    @property
    def poolings(self) -> dict[str, Pooling]:
        """By kind of medium."""
        return {"video": self.pooling, "image": self.image_pooling or self.pooling}

    @cached_property
    def precision(self) -> str:
        """Of matrix products: trainer.precision, else bfloat16 where the device or the model computes in it."""
        chosen = self.config.trainer.get("precision")
        if chosen is not None:
            return str(chosen)
        half = self.model["dtype"] != "float32" or (not on_cpu(self.config) and torch.cuda.is_bf16_supported())
        return "bf16-mixed" if half else "32-true"

    @cached_property
    def sources(self) -> list[Source]:
        """Sources of examples, held-out ones included. Notes which entries cannot be used."""
        names = list(plain(self.config.training_data).get("sources") or {})
        if (wanted := jsonable(self.config.job.sources)) is not None:
            if not isinstance(wanted, list) or not wanted or set(wanted) - set(names):
                raise ConfigError(f"job.sources={wanted}: give a list of names; there are {', '.join(names)}")
            names = [name for name in names if name in wanted]
        if not names:
            raise TrainingDataError("training_data.sources: there is none; say training_data=shapes, for example")
        nodes = {name: plain(self.config.training_data.sources[name]) for name in names}  # refuses missing values
        # Those that are rendered come last: a missing file is found first.
        order = sorted(names, key=lambda name: "kind" in nodes[name])
        built = {name: build(self.config.training_data.sources, name, name=name) for name in order}
        sources = {name: built[name] for name in names}
        for name, source in sources.items():
            if not isinstance(source, Source):
                raise ConfigError(f"training_data.sources.{name}: {type(source).__name__} is not a Source of examples")
            self._note_refused(source)
        return list(sources.values())

    def _note_refused(self, source: Source) -> None:
        allowed, refused = float(self.config.job.max_failed_fraction), source.refused
        total = len(source.examples) + len(refused)
        note_left_out(refused)
        if len(refused) > allowed * total:
            share = f"{len(refused)} of {total} entries cannot be used (allowed: job.max_failed_fraction={allowed:g})"
            raise TrainingDataError(f"training_data.sources.{source.name}: {share}; the first: {refused[0]}")

    @cached_property
    def split(self) -> tuple[Mixture, list[Example]]:
        """The stream of training examples, and the held-out examples."""
        share, most = self.settings["validation"]["share"], self.settings["validation"]["most"]
        kept, held = [], []
        for source in self.sources:
            left, out = source.split(share, -(-most // len(self.sources)))
            kept.append(left.part(self.settings["share"]))
            held += out
        return Mixture(kept, self.seed), held[:most]

    @cached_property
    def steps(self) -> int:
        """Optimiser steps of the run, from training.steps or training.epochs."""
        settings, mixture = self.settings, self.split[0]
        batch = int(settings["global_batch"])
        if settings["steps"] is not None:
            if batch > mixture.length(1):
                epoch = f"the {mixture.length(1)} examples of an epoch: a step shows some of them more than once"
                note(f"training.global_batch={batch} is more than {epoch}")
            return int(settings["steps"])
        steps = mixture.length(int(settings["epochs"])) // batch
        if steps < 1:
            few = f"fewer examples than one step of training.global_batch={batch}"
            raise TrainingDataError(f"training.epochs={settings['epochs']} of the data are {few}")
        return steps

    def tokens_of(self, kind: str) -> int:
        """Tokens that the language model reads of a clip ("video") or an image, which is never tiled."""
        if kind == "video":
            return self.visual_tokens
        pooling, size = self.poolings[kind], (1, self.shape.height, self.shape.width)
        return announced(pooling, *size) + beside(pooling, self.shape, size, self.layout)

    def flops_of(self, kind: str, text: int) -> float:
        """Operations of learning from a conversation of `text` tokens, one of which stands for the clip."""
        tokens = self.tokens_of(kind)
        patches = (self.grid[0] if kind == "video" else 1) * self.shape.height * self.shape.width
        projected = patches if self.stage == "projector" else tokens
        return training_flops(self.shape, tokens + text - 1, projected, bool(self.settings["checkpoint_gradients"]))

    def limits(self) -> dict[str, int]:
        """Most tokens of a conversation, with the place of its clip, by kind of medium. Raises ModelError for none.

        Clips that differ in the size of their frames are counted when they are read.
        """
        limits = {}
        for kind in {example.kind for source in self.sources for example in source.examples}:
            tokens = 1 if self.shape.by_clip else self.tokens_of(kind)
            check_context(str(self.model["name"]), self.shape.context, tokens)
            limits[kind] = min(int(self.settings["max_text"]), self.shape.context - tokens + 1)
        return limits

    @property
    def name(self) -> str:
        """Readable, for folders."""
        label, frames, *stage = self.parts
        return readable(f"{self.model['name']} tuned", label, frames, f"s{self.seed}", *stage)

    def identity(self) -> dict[str, object]:
        """Everything that determines the trained weights."""
        images = self.config.job.get("image_pooling")
        return {
            "job": "finetune",
            "model": self.model_identity,
            "dtype": self.model["dtype"],
            "rope_factor": self.model["rope_factor"],
            "frame_size": self.model.get("frame_size"),
            "tower": tower_changes(self.model).identity,
            "precision": self.precision,
            "features": rounds(self.model["dtype"], self.store.dtype, None),
            "stage": self.stage,
            "pooling": {k: v for k, v in plain(self.config.pooling).items() if k != "stage"},
            "image_pooling": None if images is None else plain(images),
            "frames": plain(self.config.frames),
            "layout": self.layout,
            "longest": self.config.compat.longest,
            "reader": self.config.job.reader,
            "data": {source.name: source.digest for source in self.sources},
            "training": {k: v for k, v in self.settings.items() if k not in NOT_IDENTITY},
            "code": own_code(self.config, CODE),
            "export": self.config.job.export,
            "seed": self.seed,
        }

    def recipe(self, step: int | None = None) -> str:
        """Fingerprint that weights exported after a step (None: the last) share if they differ in their seed alone."""
        common = without_seed(self.identity())
        return fingerprint(common if step is None else {**common, "export": step})

    def describe(self) -> dict[str, object]:
        """Facts about the run, for its manifest and W&B."""
        return {
            "model": self.model["name"],
            "pooling": self.pooling.label,
            "stage": self.stage,
            "frames": self.sampler.num,
            "visual_tokens": None if self.shape.by_clip else self.visual_tokens,
            "steps": None if self.settings["tflops"] is not None else self.steps,
            "sources": {
                source.name: {"examples": len(source.examples), "refused": len(source.refused), "weight": source.weight}
                for source in self.sources
            },
            "held_out": len(self.split[1]),
        }

    def check(self) -> None:
        """Raises UserError if pooling, frames, data and model do not fit each other, or all media are missing."""
        for source in self.sources:
            if not any(os.path.exists(example.media) for example in source.examples):
                missing = f"none of {len(source.examples)} media is there, as {source.examples[0].media}"
                raise TrainingDataError(f"training_data.sources.{source.name}: {missing}; check its root")
        if not self.fitted:
            self.fit()
        self.limits()
        note(self.assumed and f"{self.assumed} where operations are counted")

    def fit(self) -> None:
        """Raises UserError if poolings, model and machine do not fit each other, whatever the data."""
        for pooling in self.poolings.values():
            check_needs(pooling, self.shape, str(self.model["name"]), self.stage, one_question=False)
        if self.settings["lora"] is not None:
            family = family_of(self.shape.family, self.model.get("_target_"))
            check_new_lora(self.settings["lora"], family.attention)
        check_machine(self.config, self.model)
