"""Settings of job=norms, and its clips."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import Rules, plain, whole
from videopool.config.build import check as check_rules
from videopool.config.errors import ConfigError
from videopool.features import ClipJob
from videopool.inference.read_plan import group_by_clip
from videopool.measuring.stages import (
    ENCODER,
    LLM,
    POOLED,
    PROJECTOR,
    NormStage,
    TowerScore,
    lineages,
    parse_layers,
    parse_scores,
    parse_stages,
)
from videopool.models.stages import TEXT
from videopool.norms import Measurement, OutlierRules
from videopool.norms.token_norms import power
from videopool.points.point import Point
from videopool.points.setting import refuse_api, refuse_reading

# The parts of an evaluation's identity that norms depend on.
SHARED = (
    "model", "adapter", "dtype", "rope_factor", "frame_size", "tower", "precision", "features", "stage",
    "pooling", "frames", "layout", "longest", "reader", "benchmark", "annotations", "code", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class NormSettings:
    """Settings of a measurement."""

    stages: Sequence[NormStage]
    attention_layers: Sequence[int]  # of the language model, counted from 1
    p: float  # of the norm
    rules: OutlierRules
    texture: bool  # whether norms are compared with patch texture
    scores: Sequence[TowerScore]
    vocabulary: bool  # whether tokens are compared with the vocabulary's embeddings
    register_neurons: int  # how many of the tower's neurons are named that outliers activate most
    overlap: bool  # whether outliers are compared with what the pooling keeps
    lineages: Mapping[str, Sequence[str]]  # stages of successive layers, of tower and language model

    def measurement(self, entries: int) -> Measurement:
        """An empty measurement; the vocabulary has so many entries."""
        named = {kind: [stage.name for stage in self.stages if stage.kind == kind] for kind in (PROJECTOR, POOLED, LLM)}
        return Measurement(
            [stage.name for stage in self.stages],
            self.attention_layers,
            self.p,
            self.rules,
            [score.name for score in self.scores],
            self.lineages,
            named[LLM],
            dict.fromkeys([*named[PROJECTOR], *named[POOLED]] if self.vocabulary else [], entries),
            self.overlap,
            self.register_neurons,
        )

    @property
    def tower_layers(self) -> list[int]:
        """Layers of the tower besides its feature layers, each once."""
        return list(dict.fromkeys(s.layer for s in self.stages if s.kind == ENCODER and s.layer is not None))

    @property
    def pools(self) -> bool:
        """Whether clips are pooled, for a stage behind it or for what it keeps."""
        return bool(self.llm_layers) or self.overlap or any(stage.kind == POOLED for stage in self.stages)

    @property
    def llm_layers(self) -> list[int]:
        """Layers of the language model with needed hidden states, including those that enter attention layers."""
        own = [s.layer for s in self.stages if s.kind == LLM and s.layer is not None]
        return sorted({*own, *(layer - 1 for layer in self.attention_layers)})


def clip_name(job: ClipJob) -> str:
    """A clip's name, with its bounds if it has any."""
    if job.start is None and job.end is None:
        return job.name
    return f"{job.name} {job.start or 0:.12g}-{'' if job.end is None else f'{job.end:.12g}'} s"


def check(config: DictConfig) -> dict[str, Any]:
    """The node `job`, checked as far as possible without the model. Raises ConfigError or NormsError."""
    refuse_api(config)
    refuse_reading(config, "job=norms")
    job = plain(config.job)
    rules: Rules = {
        whole(1): ("job.save_every",),
        whole(1, null=True): ("job.clips",),
        whole(0): ("job.register_neurons",),
        bool: ("job.texture", "job.vocabulary", "job.overlap"),
    }
    check_rules(config, rules)
    if config.trainer.devices != 1:
        raise ConfigError("trainer.devices: job=norms adds clips up in one process; say trainer.devices=1")
    if job["attention_layers"] and config.model.attention != "eager":
        layers = job["attention_layers"]
        raise ConfigError(f"job.attention_layers={layers}: attention weights are kept by model.attention=eager only")
    if not isinstance(job["rules"], dict) or set(job["rules"]) - set(OutlierRules.__dataclass_fields__):
        raise ConfigError(f"job.rules={job['rules']}: there are {', '.join(OutlierRules.__dataclass_fields__)}")
    OutlierRules(**job["rules"])
    power(job["p"])
    return job


def read_settings(job: dict[str, Any], point: Point) -> NormSettings:
    """The settings in a checked node `job`. Raises ConfigError for a stage or layer that the model lacks."""
    model = point.shape, str(point.model["name"])
    stages, layers = parse_stages(job["stages"], *model), parse_layers(job["attention_layers"], *model)
    if job["register_neurons"] and point.shape.together > 1:
        raise ConfigError(f"job.register_neurons: the tower of {model[1]} has no place for registers; say 0")
    return NormSettings(
        stages,
        layers,
        power(job["p"]),
        OutlierRules(**job["rules"]),
        job["texture"],
        parse_scores(job["tower_scores"], *model),
        job["vocabulary"],
        job["register_neurons"],
        job["overlap"],
        lineages(stages, point.shape),
    )


class NormPoint(Point):
    """A point whose stages are checked before its benchmark is read."""

    def fit(self) -> None:
        super().fit()
        read_settings(plain(self.config.job), self)


def choose_clips(point: Point, limit: int | None) -> list[ClipJob]:
    """The benchmark's clips, each once; at most so many of them, evenly spread."""
    every = group_by_clip(point.benchmark.samples)
    wanted = min(len(every), limit or len(every))
    return [every[place * len(every) // wanted] for place in range(wanted)]


def identify(job: dict[str, Any], point: Point, clips: Sequence[ClipJob]) -> dict[str, object]:
    """All that determines the numbers. Needs no weights."""
    everything = point.identity()
    asked = TEXT in point.pooling.needs
    seen: list[list[object]] = [[clip.name, clip.start, clip.end, clip.fps] for clip in clips]
    if job["attention_layers"] or asked:  # the numbers depend on the questions
        seen += [[clip.samples[0].question, *clip.samples[0].options] for clip in clips]
    if job["overlap"]:
        seen += [sorted({sample.task for sample in clip.samples}) for clip in clips]
    prompted = job["attention_layers"] or any(str(stage).startswith(f"{LLM}.") for stage in job["stages"])
    return {
        **{name: everything[name] for name in SHARED},
        "prompt": asdict(point.prompt) if prompted or asked else None,
        "clips": hashlib.sha256(json.dumps(seen).encode()).hexdigest(),
        "norms": {
            "stages": job["stages"],
            "attention_layers": job["attention_layers"],
            "p": str(power(job["p"])),
            "rules": _as_floats(job["rules"]),
            "texture": job["texture"],
            "tower_scores": job["tower_scores"],
            "vocabulary": job["vocabulary"],
            "overlap": job["overlap"],
            "register_neurons": job["register_neurons"],
        },
    }


def _as_floats(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Rules in which 3 and 3.0 are the same."""
    return {name: [*map(float, own)] if isinstance(own, list) else float(own) for name, own in rules.items()}
