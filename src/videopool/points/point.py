"""One point: a configuration made into objects, with what identifies it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.benchmarks import Benchmark, Prompt
from videopool.config.build import build, plain
from videopool.config.check import Number, Rules, check, whole
from videopool.config.choices import chosen
from videopool.config.errors import ConfigError
from videopool.config.own_code import own_code
from videopool.features import FeatureStore, rounds
from videopool.inference.feature_key import shared_store
from videopool.models import identity, prefill_flops
from videopool.models.shape import shape_differences, shape_from
from videopool.models.source import on_hub
from videopool.models.stages import check_context, check_needs
from videopool.notes import note
from videopool.points.adapter import adapter_identity, read_adapter
from videopool.points.judge import build_judge, check_gradable
from videopool.points.pooling_settings import pooling_settings
from videopool.points.setting import Setting, readable
from videopool.pooling import map_signature
from videopool.results import fingerprint

PARSING = ("strict", "pllava")  # of generated answers
CODE = ("model", "pooling", "frames", "benchmark", "prompt", "features", "trainer")  # groups that may name a user's own
RULES: Rules = {
    PARSING: ("compat.scoring",),
    whole(0): ("job.workers",),
    whole(1): ("job.max_visual_tokens", "job.max_clips", "trainer.devices"),
    whole(1, null=True): ("compat.longest",),
    Number(0, 1): ("job.max_failed_fraction",),
}


class Point(Setting):
    """One configuration, made into objects; weights are not loaded, and the model's sizes not before they are used.

    Raises:
        UserError: the configuration or the files it names are wrong.
    """

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        check(config, RULES)
        if str(config.trainer.get("precision")).endswith("16-true"):
            raise ConfigError(
                f"trainer.precision={config.trainer.precision}: say model.dtype=bfloat16 or float16 instead"
            )
        self.prompt: Prompt = build(config, "prompt")
        self.take_model()
        self.judge = build_judge(config)
        self.benchmark = self.take_benchmark()
        if self.judge is not None:
            check_gradable(self.judge, self.benchmark)

    def take_benchmark(self) -> Benchmark:
        """The samples of the group `benchmark`."""
        benchmark: Benchmark = build(self.config, "benchmark")
        return benchmark

    def take_model(self) -> None:
        """Find out what the model is, from the group `model` and what goes with it."""
        self.model_identity = identity(self.model["source"], self.model["revision"], target=self.model.get("_target_"))
        self.adapter = read_adapter(plain(self.config.lora))
        self.store: FeatureStore = shared_store(self.config)

    def check(self) -> None:
        """Raises UserError if pooling, frames and model do not fit each other."""
        name, source = self.model["name"], self.model["source"]
        check_needs(self.pooling, self.shape, name, self.stage)
        if self.model["shape"] is not None:
            told = shape_from(self.model["shape"], target=self.model.get("_target_")).stretched(
                self.model["rope_factor"]
            )
            if on_hub(source) and (differences := shape_differences(told, self.shape)):
                note(f"model.shape, used by job=plan, is not that of {source}: {differences}")
        check_context(name, self.shape.context, self.visual_tokens)
        trained = self.adapter and self.adapter["trained_pooling"]
        if trained and trained != pooling_settings(self.config, self.pooling):
            told = trained.get("label", "another pooling")
            note(
                f"{name} with {self.adapter['checkpoint']} was trained under {told}, "  # type: ignore[index]
                f"and is evaluated under {self.pooling.label}"
            )

    @property
    def model_name(self) -> str:
        """The model as tables call it, with what was put onto it or changed about it."""
        name = str(self.model["name"])
        if self.adapter is not None:
            alpha = self.adapter["alpha"]
            name += f" {Path(self.adapter['checkpoint']).name}" if alpha is None else f" alpha {_digits(alpha)}"
            if self.adapter["projector"] is not None:
                name += f" projector {_digits(self.adapter['projector'])}"
        if self.model["rope_factor"] is not None:
            name += f" rope {_digits(self.model['rope_factor'])}"
        return name

    @property
    def name(self) -> str:
        """Readable, for folders and tables."""
        parts = [self.model_name, *self.parts]
        if self.benchmark.scoring != "likelihood":
            parts.append(self.benchmark.scoring)
        if self.judge is not None:
            parts.append(f"judge {self.judge.label}")
        return readable(*parts)

    def identity(self) -> dict[str, object]:
        """All that determines the numbers."""
        answers, benchmark = self.answer_identity(), self.benchmark
        scored = {
            "groups": {name: sorted(tasks) for name, tasks in benchmark.groups.items()},
            "headline": list(benchmark.groups.get(benchmark.headline or "", ())),
            "axes": dict(benchmark.axes),
        }
        return {**answers, **scored, **({} if self.judge is None else {"judge": self.judge.id})}

    @property
    def answers(self) -> str:
        """Fingerprint of all that determines the answers: points that differ in their judge alone share it."""
        return fingerprint(self.answer_identity())

    def answer_identity(self) -> dict[str, object]:
        """All that determines the answers."""
        return {
            "model": self.model_identity,
            "adapter": self.adapter and adapter_identity(self.adapter),
            "dtype": self.model["dtype"],
            "rope_factor": self.model["rope_factor"],
            "precision": self.config.trainer.get("precision"),
            "features": rounds(self.model["dtype"], self.store.dtype, self.config.trainer.get("precision")),
            "stage": self.stage,
            "pooling": {k: v for k, v in plain(self.config.pooling).items() if k != "stage"},
            "frames": plain(self.config.frames),
            "longest": self.config.compat.longest,
            **self.question_identity(),
        }

    def question_identity(self) -> dict[str, object]:
        """All that determines what is asked, and how answers are read."""
        benchmark = self.benchmark
        return {
            "reader": self.config.job.reader,
            "benchmark": benchmark.id,
            "annotations": benchmark.annotation_hash,
            "samples": benchmark.samples_hash,
            "code": own_code(self.config, CODE),
            "scoring": benchmark.scoring,
            "max_new_tokens": benchmark.max_new_tokens,
            "parsing": self.config.compat.scoring,
            "prompt": asdict(self.prompt),
            "seed": self.config.seed,
        }

    def describe(self) -> dict[str, object]:
        """What tables say about the point."""
        size = (self.sampler.num, self.shape.height, self.shape.width)
        return {
            "model": self.model_name,
            "lora_alpha": self.adapter and self.adapter["alpha"],
            "trained_pooling": self.adapter and self.adapter["trained_pooling"],
            "trained_recipe": self.adapter and self.adapter["recipe"],
            "training": self.adapter and self.adapter["training"],
            "pooling": self.pooling.label,
            "stage": self.stage,
            "frames": self.sampler.num,
            "visual_tokens": self.visual_tokens,
            "benchmark": self.benchmark.id,
            "split": self.benchmark.split,
            "prefill_gflops": prefill_flops(self.shape, self.visual_tokens) / 1e9,
            "map_signature": map_signature(self.pooling, *size),
            "windows": self.pooling.windows(*self.grid),
            "prompt": chosen("prompt") or self.prompt.hash(True),
            **self.scored_by(),
        }

    def scored_by(self) -> dict[str, object]:
        """Who graded open answers, and the weights of tasks in the score."""
        if self.judge is None:
            return {"judge": None}
        return {"judge": self.judge.id, "task_weights": self.benchmark.task_weights}

    def more_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, object]:
        """Metrics that only this kind of point has."""
        return {}


def _digits(value: float) -> str:
    """A number in as many digits as tell it from all others."""
    return repr(float(value)).removesuffix(".0").replace("+", "")
