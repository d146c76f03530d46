"""Stages of a model that job=norms measures: their names, and their meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from videopool.config.errors import ConfigError
from videopool.models import ModelShape
from videopool.models.tower_outputs import lacking

ENCODER, PROJECTOR, POOLED, LLM = "encoder", "projector", "pooled", "llm"
SCORES, HEAD = ("received", "cls", "values"), "head"  # kinds of scores of the tower: of a block, and without one


@dataclass(frozen=True)
class NormStage:
    """A stage at which norms are measured."""

    name: str  # in the configuration
    kind: str  # "encoder", "projector", "pooled" or "llm"
    layer: int | None = None  # counted from 0; None for the tower's feature layers, and for stages without layers


@dataclass(frozen=True)
class TowerScore:
    """A score of the patches in the tower."""

    name: str  # in the configuration
    kind: str
    block: int  # counted from 1; 0 for the pooling head


def _each(names: Any, key: str, ranges: dict[str, range]) -> list[str]:
    """The names of a list, where "<kind>.*" stands for all numbers of a kind's range. Raises ConfigError as _listed."""
    whole = {f"{kind}.*": [f"{kind}.{number}" for number in own] for kind, own in ranges.items()}
    return _listed([one for name in _listed(names, key) for one in whole.get(str(name), [str(name)])], key)


def parse_stages(names: Any, shape: ModelShape, model: str) -> list[NormStage]:
    """The stages of job.stages. Raises ConfigError for a stage that the model lacks, or none at all."""
    depths = {ENCODER: shape.vision_layers, LLM: shape.layers}
    stages: list[NormStage] = []
    for name in _each(names, "job.stages", {kind: range(depth + 1) for kind, depth in depths.items()}):
        kind, _, layer = name.partition(".")
        if name in (ENCODER, PROJECTOR, POOLED):
            stages.append(NormStage(name, name))
        elif kind in depths and layer:
            stages.append(NormStage(name, kind, _layer(f"job.stages: {name}", layer, 0, depths[kind], model)))
        else:
            there = f"{ENCODER}, {ENCODER}.<layer>, {PROJECTOR}, {POOLED} and {LLM}.<layer>; * is every layer"
            raise ConfigError(f"job.stages: there is no stage {name}; there are {there}")
    if not stages:
        raise ConfigError("job.stages names no stage")
    return stages


def parse_layers(layers: Any, shape: ModelShape, model: str) -> list[int]:
    """The layers of job.attention_layers, counted from 1. Raises ConfigError for a layer that the model lacks."""
    key = "job.attention_layers"
    return [_layer(key, str(layer), 1, shape.layers, model) for layer in _listed(layers, key)]


def parse_scores(names: Any, shape: ModelShape, model: str) -> list[TowerScore]:
    """The scores of job.tower_scores. Raises ConfigError for one that the model's tower lacks."""
    key, depth, scores = "job.tower_scores", shape.vision_layers, list[TowerScore]()
    for name in _each(names, key, {kind: range(1, depth + 1) for kind in SCORES}):
        kind, _, block = name.partition(".")
        if name != HEAD and (kind not in SCORES or not block):
            raise ConfigError(
                f"{key}: there is no score {name}; there are {', '.join(f'{each}.<block>' for each in SCORES)} and "
                f"{HEAD}; * is every block"
            )
        if problem := lacking(kind, shape, model):
            raise ConfigError(f"{key}: {name} needs {problem}")
        scores.append(TowerScore(name, kind, 0 if name == HEAD else _layer(f"{key}: {name}", block, 1, depth, model)))
    return scores


def lineages(stages: Sequence[NormStage], shape: ModelShape) -> dict[str, list[str]]:
    """Stages of the tower up to its feature layer, and of the language model, from the first layer to the last.

    A kind with fewer than two stages has none; so has the tower if its feature layers stand side by side.
    """
    found = {}
    for kind in (ENCODER, LLM):
        last = shape.vision_layers_run if kind == ENCODER else shape.layers
        if kind == ENCODER and shape.feature_layers > 1:
            continue
        own = [(last if stage.layer is None else stage.layer, stage.name) for stage in stages if stage.kind == kind]
        names = {layer: name for layer, name in sorted(own) if layer <= last}  # a layer under two names counts once
        if len(names) > 1:
            found[kind] = list(names.values())
    return found


def _listed(values: Any, key: str) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{key}={values!r}: give a list, as in {key}=[...]")
    if twice := {str(value) for value in values if values.count(value) > 1}:
        raise ConfigError(f"{key}: {', '.join(sorted(twice))} stands twice")
    return list(values)


def _layer(where: str, text: str, first: int, last: int, model: str) -> int:
    """A layer, counted from the start; text may count from the end. Raises ConfigError if there is no such layer."""
    digits = text.removeprefix("-")
    number = int(text) if digits.isascii() and digits.isdigit() else None
    if number is not None and number < 0:
        number += last + 1
    if number is None or not first <= number <= last:
        there = f"{first}..{last} there, or -1 for the last, -2 for the one before"
        raise ConfigError(f"{where}: {model} has layers {there}; got {text}")
    return number


def describe_stage(stage: NormStage, shape: ModelShape, feature_layers: Sequence[int], pooling_stage: str) -> str:
    """What the tokens of a stage are, and on which side of which layer norm (`feature_layers` counts from 0)."""
    if stage.kind == ENCODER:
        norm = "after CLIP's layer norm of them" if shape.cls else "not normalised"
        layers = feature_layers if stage.layer is None else [stage.layer]
        first = f"patch and position embeddings as they enter the tower's first layer, {norm}"
        place = f"of {shape.vision_layers} of the tower, before the tower's post layer norm"
        parts = [f"hidden state after layer {layer} {place}" if layer else first for layer in layers]
        parts += ["side by side"] * (len(layers) > 1)
        return "; ".join([*parts, "CLS left out" if shape.cls else "the tower has no CLS"])
    if stage.kind == PROJECTOR:
        return "output of the projector for each patch of each frame, not pooled"
    if stage.kind == POOLED:
        order = "pooled before the projector, then projected" if pooling_stage == ENCODER else "projected, then pooled"
        return f"visual tokens as the language model reads them: {order}; separators left out"
    place = f"after layer {stage.layer} of {shape.layers}" if stage.layer else "as they enter the first layer"
    return (
        f"hidden states of the language model at visual positions {place}, not normalised by a later layer or at the "
        "end; only the prompt's text before the visual tokens precedes them"
    )
