"""Stages of a model that job=norms can measure: their names, and what exactly they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from videopool.config.errors import ConfigError
from videopool.models import ModelShape

ENCODER, PROJECTOR, POOLED, LLM = "encoder", "projector", "pooled", "llm"


@dataclass(frozen=True)
class Stage:
    """Where norms are measured.

    Attributes:
        name: as the user says it.
        kind: "encoder", "projector", "pooled" or "llm".
        layer: of the tower or the language model, counted from 0; None for the tower's feature layers, and where
            there are no layers.
    """

    name: str
    kind: str
    layer: int | None = None


def parse_stages(names: Any, shape: ModelShape, model: str) -> list[Stage]:
    """The stages of job.stages. Raises ConfigError for a stage that the model lacks, or none at all."""
    depths = {ENCODER: shape.vision_layers, LLM: shape.layers}
    stages: list[Stage] = []
    for name in _listed(names, "job.stages"):
        kind, _, layer = str(name).partition(".")
        if str(name) in (ENCODER, PROJECTOR, POOLED):
            stages.append(Stage(kind, kind))
        elif kind in depths and layer:
            stages.append(Stage(str(name), kind, _layer(f"job.stages: {name}", layer, 0, depths[kind], model)))
        else:
            raise ConfigError(
                f"job.stages: there is no stage {name}; there are {ENCODER}, {ENCODER}.<layer>, {PROJECTOR}, {POOLED} "
                f"and {LLM}.<layer>"
            )
    if not stages:
        raise ConfigError("job.stages names no stage")
    return stages


def parse_layers(layers: Any, shape: ModelShape, model: str) -> list[int]:
    """The layers of job.attention_layers, counted from 1. Raises ConfigError for one that the model lacks."""
    return [
        _layer("job.attention_layers", str(layer), 1, shape.layers, model)
        for layer in _listed(layers, "job.attention_layers")
    ]


def _listed(values: Any, key: str) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{key}={values!r}: give a list, as in {key}=[...]")
    found = list(values)
    if twice := {str(value) for value in found if found.count(value) > 1}:
        raise ConfigError(f"{key}: {', '.join(sorted(twice))} stands twice")
    return found


def _layer(where: str, text: str, first: int, last: int, model: str) -> int:
    """A layer counted from the beginning, as the user may from the end. Raises ConfigError if there is no such one."""
    digits = text.removeprefix("-")
    number = int(text) if digits.isascii() and digits.isdigit() else None
    if number is not None and number < 0:
        number += last + 1
    if number is None or not first <= number <= last:
        raise ConfigError(
            f"{where}: {model} has layers {first}..{last} there, or -1 for the last, -2 for the one before; got {text}"
        )
    return number


def describe_stage(stage: Stage, shape: ModelShape, feature_layers: Sequence[int], pooling_stage: str) -> str:
    """What the tokens of a stage are, and on which side of which layer norm they are taken.

    Args:
        feature_layers: of the tower, counted from 0.
        pooling_stage: where the point pools.
    """
    if stage.kind == ENCODER:
        layers = list(feature_layers) if stage.layer is None else [stage.layer]
        cls = "CLS left out" if shape.cls else "the tower has no CLS"
        parts = []
        for layer in layers:
            if layer == 0:
                norm = "behind CLIP's layer norm of them" if shape.cls else "not normalised"
                parts.append(f"patch and position embeddings as they enter the tower's first layer, {norm}")
            else:
                parts.append(
                    f"hidden state behind layer {layer} of {shape.vision_layers} of the tower, before the tower's "
                    "post layer norm"
                )
        return "; ".join([*parts, *(["side by side"] if len(parts) > 1 else []), cls])
    if stage.kind == PROJECTOR:
        return "output of the projector for each patch of each frame, not pooled"
    if stage.kind == POOLED:
        said = "pooled before the projector, then projected" if pooling_stage == ENCODER else "projected, then pooled"
        return f"visual tokens as the language model reads them: {said}; separators left out"
    place = "as they enter the first layer" if stage.layer == 0 else f"behind layer {stage.layer} of {shape.layers}"
    return (
        f"hidden states of the language model at visual positions {place}, not normalised by a later layer or at the "
        "end; only the prompt's text before the visual tokens stands before them"
    )
