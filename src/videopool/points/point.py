"""One point: a configuration as objects, with its identity."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig

from videopool.benchmarks import Benchmark, Prompt
from videopool.config.build import Number, Rules, build, is_number, plain, whole
from videopool.config.choices import chosen
from videopool.config.errors import ConfigError
from videopool.config.own_code import own_code
from videopool.features import FeatureStore, rounds
from videopool.inference.feature_key import shared_store
from videopool.models import identity, load_adapter
from videopool.models.shape import shape_differences, stated_shape
from videopool.models.source import on_hub
from videopool.models.texts import FRAMES
from videopool.models.tower_changes import tower_changes
from videopool.notes import note
from videopool.points.early import check_machine, check_model, check_settings
from videopool.points.judge import build_judge
from videopool.points.setting import Setting, pooling_settings, readable
from videopool.points.twins import signature_on
from videopool.results import fingerprint
from videopool.runtime.ranks import SHARDING

PARSING = ("strict", "pllava")  # of generated answers
# Groups that may name the user's own classes.
CODE = ("model", "pooling", "frames", "benchmark", "prompt", "features", "trainer")
RULES: Rules = {
    PARSING: ("compat.scoring",),
    bool: ("compat.expand",),
    whole(0): ("job.workers",),
    whole(1): ("job.max_visual_tokens", "job.max_clips", "trainer.devices"),
    whole(1, null=True): ("compat.longest", "compat.pad_frames", "job.max_cache_bytes", "features.frames_at_once"),
    Number(0, 1): ("job.max_failed_fraction",),
}


class Point(Setting):
    """One configuration as objects, without weights. Raises UserError for a wrong configuration or file."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        check_settings(config, RULES)
        if str(config.trainer.get("precision")).endswith("16-true"):
            precision = config.trainer.precision
            raise ConfigError(f"trainer.precision={precision}: say model.dtype=bfloat16 or float16 instead")
        if (strategy := str(config.trainer.get("strategy"))).startswith(SHARDING):
            other = "which has devices share the clips; model.device_map=auto spreads one model over them"
            raise ConfigError(f"trainer.strategy={strategy} is for job=finetune; say trainer=ddp, {other}")
        self.prompt: Prompt = build(config, "prompt")
        self.take_model()
        self.judge = build_judge(config)
        self.fitted = not self.begun(self.model_name, *self.parts)
        if self.fitted:
            self.fit()

    @cached_property
    def benchmark(self) -> Benchmark:
        """The samples; clips that are rendered are rendered here."""
        return self.take_benchmark()

    def take_benchmark(self) -> Benchmark:
        """The samples of the group `benchmark`."""
        benchmark: Benchmark = build(self.config, "benchmark")
        return benchmark

    def take_model(self) -> None:
        """Identify the model and its checkpoint; open the feature store."""
        check_model(self.config)
        tower_changes(self.model)  # raises for what no tower could do
        self.model_identity = identity(self.model["source"], self.model["revision"], target=self.model.get("_target_"))
        self.adapter = read_adapter(plain(self.config.lora))
        self.store: FeatureStore = shared_store(self.config)

    def fit(self) -> None:
        """Raises UserError if pooling, frames, model and machine do not fit each other, whatever the benchmark."""
        benchmark = self.config.benchmark
        written = benchmark.get("max_new_tokens", 0) if benchmark.get("scoring") == "generate" else 0
        self.check_sizes(int(written or 0))
        check_machine(self.config, self.model)

    def check(self) -> None:
        """As fit(), with the benchmark; notes what is unusual."""
        if not self.fitted:
            self.fit()
        samples = self.benchmark.samples
        if self.judge is not None and not any(sample.answer and not sample.options for sample in samples):
            missing = f"{self.benchmark.id} has no open questions with reference answers"
            raise ConfigError(f"judge {self.judge.label}: {missing}; say judge=none")
        name, source, stated = self.model["name"], self.model["source"], self.model["shape"]
        if stated is not None:
            shape = stated_shape(self.model)
            if on_hub(source) and (differences := shape_differences(shape, self.shape)):
                note(f"model.shape, used by job=plan, is not that of {source}: {differences}")
        adapter = self.adapter or {}
        trained = adapter.get("trained_pooling")
        if trained and trained != pooling_settings(self.config, self.pooling):
            label = trained.get("label", "another pooling")
            line = f"{name} with {adapter['checkpoint']} was trained under {label}"
            note(f"{line}, and is evaluated under {self.pooling.label}")
        changes = tower_changes(self.model)
        if "tower" in (base := adapter.get("base") or {}) and base["tower"] != changes.identity:
            line = f"{name} with {adapter['checkpoint']} was trained with model.tower={base['tower']}"
            note(f"{line}, and is evaluated with {changes.identity}")

    @property
    def model_name(self) -> str:
        """The model's name in tables, with its checkpoint and changes."""
        adapter = self.adapter or {}
        parts = [str(self.model["name"])]
        if adapter and adapter["alpha"] is None:
            parts.append(Path(adapter["checkpoint"]).name)
        changes = {key: adapter.get(key) for key in ("alpha", "projector")} | {"rope": self.model["rope_factor"]}
        parts += [f"{word} {_digits(value)}" for word, value in changes.items() if value is not None]
        return " ".join(filter(None, [*parts, tower_changes(self.model).label]))

    @property
    def name(self) -> str:
        """The readable name of folders and tables."""
        scoring = [] if self.benchmark.scoring == "likelihood" else [self.benchmark.scoring]
        if (seed := self.benchmark.shuffle_options) is not None:
            scoring.append(f"options shuffled {seed}")
        judge = [] if self.judge is None else [f"judge {self.judge.label}"]
        return readable(self.model_name, *self.parts, *scoring, *judge)

    def identity(self) -> dict[str, object]:
        """All that determines the numbers."""
        benchmark = self.benchmark
        return {
            **self.answer_identity,
            "groups": {name: sorted(tasks) for name, tasks in benchmark.groups.items()},
            "headline": list(benchmark.groups.get(benchmark.headline or "", ())),
            "axes": dict(benchmark.axes),
            "average": benchmark.average,
            **({} if self.judge is None else {"judge": self.judge.id}),
        }

    @property
    def answers(self) -> str:
        """Fingerprint of all that determines the answers. Points that differ only in their judge share it."""
        return fingerprint(self.answer_identity)

    @cached_property
    def answer_identity(self) -> dict[str, object]:
        """All that determines the answers."""
        return {
            "model": self.model_identity,
            "adapter": self.adapter and _adapter_identity(self.adapter),
            "dtype": self.model["dtype"],
            "rope_factor": self.model["rope_factor"],
            "frame_size": self.model.get("frame_size"),
            "tower": tower_changes(self.model).identity,
            "precision": self.config.trainer.get("precision"),
            "features": rounds(self.model["dtype"], self.store.dtype, self.config.trainer.get("precision")),
            "stage": self.stage,
            "pooling": {k: v for k, v in plain(self.config.pooling).items() if k != "stage"},
            "frames": plain(self.config.frames),
            "longest": self.config.compat.longest,
            "positions": self.positions,
            "layout": self.layout,
            "pruning": self.pruning and asdict(self.pruning),
            **self.question_identity(),
        }

    def question_identity(self) -> dict[str, object]:
        """All that determines questions, prompts and the parsing of answers."""
        benchmark = self.benchmark
        return {
            "reader": self.config.job.reader,
            "benchmark": benchmark.id,
            "annotations": benchmark.annotation_hash,
            "samples": benchmark.samples_hash,
            "code": own_code(self.config, CODE),
            "scoring": benchmark.scoring,
            "shuffle_options": benchmark.shuffle_options,
            "max_new_tokens": benchmark.max_new_tokens,
            "parsing": self.config.compat.scoring,
            "prompt": asdict(self.prompt),
            "seed": self.config.seed,
        }

    def describe(self) -> dict[str, object]:
        """The point's columns in tables."""
        weights = self.benchmark.task_weights
        judged: dict[str, object] = {"judge": None} if self.judge is None else {"judge": self.judge.id}
        if weights and (self.judge is not None or self.benchmark.average == "tasks"):
            judged["task_weights"] = weights
        return {
            "model": self.model_name,
            "pooling": self.pooling.label,
            "stage": self.stage,
            "frames": self.sampler.num,
            "positions": self.positions,
            "layout": self.layout,
            "pruning": self.pruning and self.pruning.label,
            "benchmark": self.benchmark.id,
            "split": self.benchmark.split,
            **self.describe_model(),
            **judged,
        }

    def describe_model(self) -> dict[str, object]:
        """Columns that need access to the model's inside."""
        adapter = self.adapter or {}
        return {
            "lora_alpha": adapter.get("alpha"),
            "trained_pooling": adapter.get("trained_pooling"),
            "trained_recipe": adapter.get("recipe"),
            "training": adapter.get("training"),
            "visual_tokens": self.visual_tokens,
            "separators": self.beside,
            "prefill_gflops": self.prefill_flops(self.visual_tokens) / 1e9,
            "map_signature": signature_on(self.pooling, self),
            "windows": self.pooling.windows(*self.grid),
            "prompt": chosen("prompt") or self.prompt.hash(True),
        }

    def more_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, object]:
        """Metrics of this kind of point alone: real numbers of visual tokens, each clip counted once.

        Where clips may differ in their tokens or texts, their means replace the announced number and its operations.
        """
        counts = list({r["clip"]: r["visual_tokens"] for r in records if "visual_tokens" in r}.values())
        if not counts:
            return {}
        mean, real = fmean(counts), {}
        if self.pooling.varies or self.shape.by_clip or (self.shape.spreads and self.layout == FRAMES):
            real = {"visual_tokens": mean, "prefill_gflops": fmean(map(self.prefill_flops, counts)) / 1e9}
        layers = fmean(map(self.layer_mean_tokens, counts))
        numbers = {"tokens_mean": mean, "tokens_least": min(counts), "tokens_most": max(counts)}
        return {**numbers, "layer_mean_tokens": layers, **real}


def read_adapter(lora: dict[str, Any]) -> dict[str, Any] | None:
    """Checkpoint, identity, alpha and so on of the group `lora`; None for the released model."""
    alpha: Any = lora["alpha"]
    projector = lora["projector"]
    if lora["checkpoint"] is None:
        for key in ("alpha", "projector"):
            if lora[key] is not None:
                raise ConfigError(f"lora.{key}={lora[key]}: there is no lora.checkpoint to scale")
        return None
    if projector is not None and not is_number(projector):
        raise ConfigError(f"lora.projector={projector!r}: give a number, or null for the checkpoint's own")
    checkpoint = load_adapter(str(lora["checkpoint"]))
    if not checkpoint.ranks and alpha is not None:
        raise ConfigError(f"lora.alpha={alpha}: {checkpoint.source} has no LoRA to scale; say lora.alpha=null")
    if checkpoint.ranks:
        alpha = checkpoint.alpha if alpha is None else alpha
        if not is_number(alpha) or not alpha >= 0:
            raise ConfigError(f"lora.alpha={alpha!r}: give a number of at least 0 (the checkpoint does not say one)")
    return {
        "checkpoint": checkpoint.source,
        "identity": checkpoint.identity,
        "projector": None if projector is None else float(projector),
        "trained_pooling": checkpoint.trained_pooling,
        "recipe": checkpoint.recipe,
        "training": checkpoint.training,
        "base": checkpoint.base,
        "alpha": None if alpha is None else float(alpha),
    }


def _adapter_identity(adapter: dict[str, Any]) -> dict[str, Any]:
    """The identity of the changed weights; the projector only where it differs from the checkpoint's own."""
    identity = {key: adapter[key] for key in ("identity", "alpha")}
    return identity if adapter["projector"] is None else {**identity, "projector": adapter["projector"]}


def _digits(value: float) -> str:
    """The shortest digits that identify a number."""
    return repr(float(value)).removesuffix(".0").replace("+", "")
