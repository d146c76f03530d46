"""job=evaluate: one point, from configuration to metrics."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from videopool.benchmarks import Benchmark, Prompt, Sample
from videopool.features import FeatureStore, rounds
from videopool.jobs.build import build, build_pooling, jsonable, number, plain, shared_store
from videopool.jobs.contents import keep_states, outdated, redo_outdated, states_of
from videopool.jobs.errors import ConfigError
from videopool.jobs.interrupts import StopRequest
from videopool.jobs.judging import build_judge, check_gradable
from videopool.jobs.outcome import COMPLETE, Outcome
from videopool.jobs.own_code import own_code
from videopool.jobs.pooling_settings import pooling_settings
from videopool.models import ModelShape, identity, load_adapter, load_config, model_shape, prefill_flops
from videopool.models.shape import shape_differences, shape_from
from videopool.models.source import on_hub
from videopool.models.stages import STAGES, check_context, check_needs
from videopool.pooling import Pooling, announced, grid_frames, map_signature
from videopool.results import PointFolder, RecordLog, fingerprint
from videopool.results.captions import write_captions
from videopool.results.manifest import git_state, hardware, now, versions
from videopool.video import READERS, Sampler

if TYPE_CHECKING:
    from videopool.jobs.answering import Work

PARSING = ("strict", "pllava")  # of generated answers
CODE = ("pooling", "frames", "benchmark", "prompt", "features", "trainer")  # groups that may name a user's own


class Point:
    """One configuration, made into objects; weights are not loaded, and the model's sizes not before they are used.

    Raises:
        any of USER_ERRORS: the configuration or the files it names are wrong.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.stage = str(config.pooling.get("stage", "projector"))
        if self.stage not in STAGES:
            raise ConfigError(f"pooling.stage={self.stage!r}: choose one of {', '.join(STAGES)}")
        if config.job.reader not in READERS:
            raise ConfigError(f"job.reader={config.job.reader!r}: choose one of {', '.join(READERS)}")
        for key in ("job.workers", "job.max_visual_tokens", "job.max_clips"):
            number(config, key, 0 if key == "job.workers" else 1, whole=True)
        number(config, "job.max_failed_fraction", 0, 1)
        if config.compat.scoring not in PARSING:
            raise ConfigError(f"compat.scoring={config.compat.scoring!r}: choose one of {', '.join(PARSING)}")
        if config.compat.longest is not None:
            number(config, "compat.longest", 1, whole=True)
        number(config, "trainer.devices", 1, whole=True)
        if str(config.trainer.get("precision")).endswith("16-true"):
            raise ConfigError(
                f"trainer.precision={config.trainer.precision}: say model.dtype=bfloat16 or float16 instead"
            )
        self.pooling: Pooling = build_pooling(config)
        self.sampler: Sampler = build(config, "frames")
        self.prompt: Prompt = build(config, "prompt")
        self.model = plain(config.model)
        self.take_model()
        self.judge = build_judge(config)
        self.benchmark = self.take_benchmark()
        if self.judge is not None:
            check_gradable(config, self.benchmark)

    def take_benchmark(self) -> Benchmark:
        """The samples of the group `benchmark`."""
        benchmark: Benchmark = build(self.config, "benchmark")
        return benchmark

    def take_model(self) -> None:
        """Find out what the model is, from the group `model` and what goes with it."""
        self.model_identity = identity(self.model["source"], self.model["revision"])
        self.adapter = _adapter(plain(self.config.lora))
        self.store: FeatureStore = shared_store(self.config)

    @cached_property
    def shape(self) -> ModelShape:
        """The model's sizes, from its own configuration."""
        return model_shape(load_config(self.model["source"], self.model["revision"], self.model["rope_factor"]))

    @cached_property
    def visual_tokens(self) -> int:
        """Tokens that the language model reads of a clip."""
        return announced(self.pooling, *self.grid) + self.shape.separators

    @property
    def grid(self) -> tuple[int, int, int]:
        """Size (T, H, W) of the patch grid of a clip."""
        return grid_frames(self.pooling, self.sampler.num), self.shape.height, self.shape.width

    def check(self) -> None:
        """Raises one of USER_ERRORS if pooling, frames and model do not fit each other."""
        name, source = self.model["name"], self.model["source"]
        check_needs(self.pooling, self.shape, name, self.stage)
        if self.model["shape"] is not None:
            told = shape_from(self.model["shape"]).stretched(self.model["rope_factor"])
            if on_hub(source) and (differences := shape_differences(told, self.shape)):
                print(
                    f"videopool: model.shape, used by job=plan, is not that of {source}: {differences}", file=sys.stderr
                )
        check_context(name, self.shape.context, self.visual_tokens)
        trained = self.adapter and self.adapter["trained_pooling"]
        if trained and trained != pooling_settings(self.config, self.pooling):
            told = trained.get("label", "another pooling")
            print(
                f"videopool: {name} with {self.adapter['checkpoint']} was trained under {told}, "  # type: ignore[index]
                f"and is evaluated under {self.pooling.label}",
                file=sys.stderr,
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
        parts = [self.model_name, self.pooling.label, f"f{self.sampler.num}"]
        if self.stage != "projector":
            parts.append(self.stage)
        if self.benchmark.scoring != "likelihood":
            parts.append(self.benchmark.scoring)
        if self.judge is not None:
            parts.append(f"judge {self.judge.label}")
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-")

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
            "adapter": self.adapter and _adapter_identity(self.adapter),
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
            "prompt": _chosen("prompt") or self.prompt.hash(True),
            **self.scored_by(),
        }

    def scored_by(self) -> dict[str, object]:
        """Who graded open answers, and the weights of tasks in the score."""
        if self.judge is None:
            return {"judge": None}
        return {"judge": self.judge.id, "task_weights": self.benchmark.task_weights}

    def answer(self, missing: Sequence[Sample], log: RecordLog, stop: StopRequest) -> "Work":
        """Append records of samples to the log."""
        from videopool.jobs.answering import answer_with_weights

        return answer_with_weights(self, missing, log, stop)

    def more_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, object]:
        """Metrics that only this kind of point has."""
        return {}


def _chosen(group: str) -> str | None:
    """The option that was chosen of a group; None if the configuration was not composed by the program."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def _digits(value: float) -> str:
    """A number in as many digits as tell it from all others."""
    return repr(float(value)).removesuffix(".0").replace("+", "")


def point_of(config: DictConfig) -> Point:
    """The point of a configuration, of the kind that its model asks for."""
    if "base_url" in config.model:
        from videopool.jobs.api_point import ApiPoint

        return ApiPoint(config)
    return Point(config)


def _adapter(lora: dict[str, Any]) -> dict[str, Any] | None:
    """Checkpoint, identity, alpha and so on of the group `lora`; None for the model as released."""
    if lora["checkpoint"] is None:
        for key in ("alpha", "projector"):
            if lora[key] is not None:
                raise ConfigError(f"lora.{key}={lora[key]}: there is no lora.checkpoint to scale")
        return None
    projector = lora["projector"]
    if projector is not None and (isinstance(projector, bool) or not isinstance(projector, (int, float))):
        raise ConfigError(f"lora.projector={projector!r}: give a number, or null for the checkpoint's own")
    checkpoint = load_adapter(str(lora["checkpoint"]))
    alpha = checkpoint.alpha if lora["alpha"] is None else lora["alpha"]
    about = {
        "checkpoint": checkpoint.source,
        "identity": checkpoint.identity,
        "projector": None if projector is None else float(projector),
        "trained_pooling": checkpoint.trained_pooling,
        "recipe": checkpoint.recipe,
        "training": checkpoint.training,
    }
    if not checkpoint.ranks:
        if lora["alpha"] is not None:
            raise ConfigError(
                f"lora.alpha={lora['alpha']}: {checkpoint.source} has no LoRA to scale; say lora.alpha=null"
            )
        return {**about, "alpha": None}
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha >= 0:
        raise ConfigError(f"lora.alpha={alpha!r}: give a number of at least 0 (the checkpoint does not say one)")
    return {**about, "alpha": float(alpha)}


def _adapter_identity(adapter: dict[str, Any]) -> dict[str, Any]:
    """What determines the weights; the projector only where it is not the checkpoint's own."""
    named = {key: adapter[key] for key in ("identity", "alpha")}
    return named if adapter["projector"] is None else {**named, "projector": adapter["projector"]}


def evaluate(config: DictConfig) -> Outcome:
    """Run one point, or go on with it, or find it finished."""
    torch.manual_seed(int(config.seed))
    point = point_of(config)
    what = point.identity()
    folder = PointFolder(Path(config.results_dir) / config.study, point.name, fingerprint(what))
    finished = Outcome(COMPLETE, folder.path.name, "finished before", str(folder.path), fresh=False)
    clips = {sample.clip_id: sample.clip for sample in point.benchmark.samples}
    states = states_of(clips)
    # What is finished needs neither a claim nor the model's configuration.
    if folder.finished and not config.force and not outdated(folder, clips, states):
        return finished
    point.check()
    with folder:
        if config.force:
            folder.clear()
        if line := redo_outdated(folder, clips, states):
            print(f"videopool: {line}", file=sys.stderr)
        if folder.finished:  # meanwhile, by another process
            return finished
        manifest = {
            "point": point.describe(),
            "identity": what,
            "answers": point.answers,
            "prompts": {point.prompt.hash(options): point.prompt.pattern(options) for options in (True, False)},
            "experiment": _chosen("experiment"),
            "config": jsonable(config),
            "versions": versions(),
            "reader": config.job.reader,
            "attention": config.model.get("attention"),
            "git": git_state(),
            "hardware": hardware(),
            "started": now(),
        }
        folder.write_manifest(manifest)
        folder.write_clips(clips)
        keep_states(folder, states)
        # What needs weights, Lightning or W&B is imported here: a finished point needs none of them.
        from videopool.jobs.answering import answer
        from videopool.jobs.wandb_point import point_run

        try:
            with point_run(config, folder.path, point.describe()) as run:
                metrics, records = answer(point, folder)
                run.finish_point(metrics, records)
                write_captions(folder.path, records)
                folder.tell_mixed(records)
                folder.write_metrics(metrics)
        except Exception as error:
            folder.write_failure(str(error) or type(error).__name__, {"time": now()})
            raise
        return Outcome(COMPLETE, folder.path.name, _result(metrics), str(folder.path))


def _result(metrics: dict[str, Any]) -> str:
    """A point's score, or what is to say of its answers, in one line."""
    if metrics["score"] is not None:
        grade = f", judge's grade {metrics['judge_grade']:.2f} of 5" if "judge_grade" in metrics else ""
        return f"{100 * metrics['score']:.1f} %{grade}, n={metrics['n']}"
    words = metrics["answer_words"]
    told = f"; {words['n']} answers of {words['mean']:.1f} words on average" if words else ""
    return f"not scored, n={metrics['n_unscored']}{told}"
