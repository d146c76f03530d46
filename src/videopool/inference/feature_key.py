"""A point's feature store, and the key under which its tower's features are kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from videopool.config.build import build
from videopool.config.own_code import own_code
from videopool.features import FeatureSource, software
from videopool.inference.read_plan import image_processor_of
from videopool.models import Backbone
from videopool.models.lora import lora_scales
from videopool.models.passes import device_of
from videopool.models.tower_outputs import TowerOutput
from videopool.results import fingerprint

MEDIA = "video"
NOT_COMPARED = ("transformers_version", "architectures", "dtype")  # of a tower's configuration: in the key elsewhere


def shared_store(config: DictConfig) -> Any:
    """The feature store: one per process for all points with the same settings."""
    settings: Any = OmegaConf.to_container(config.features, resolve=True)
    settings.pop("frames_at_once", None)
    return _build(OmegaConf.to_yaml(settings))


@cache
def _build(node: str) -> Any:
    """The object of the group `features`, given as YAML."""
    return build(OmegaConf.create({"features": OmegaConf.create(node)}), "features")


def trainer_device(config: DictConfig) -> torch.device:
    """The device that a point's trainer runs on."""
    from videopool.inference.predict import trainer_of  # imports Lightning

    device: torch.device = trainer_of(config, devices=1, strategy="auto").strategy.root_device
    return device


def feature_source(
    config: DictConfig, backbone: Backbone, media: str = MEDIA, outputs: Mapping[str, TowerOutput] | None = None
) -> FeatureSource:
    """Everything that determines the features that a point's tower for "video" or "image" makes.

    Other outputs of the tower, by name, are beside them: of tower_outputs() for what a pooling needs.
    """
    features, reader = backbone.feature_states, str(config.job.reader)

    def size(output: TowerOutput) -> tuple[int, int]:
        return (0, output.size[1]) if backbone.shape.by_clip else output.size

    if backbone.tower(media) is backbone.tower(MEDIA):
        media = MEDIA  # an image is a clip of one frame, and shares features with it
    device = device_of(backbone.tower(media)).type
    if not backbone.placed:
        device = trainer_device(config).type  # to which the trainer moves the model
    tower = tower_hash(backbone, media)
    if backbone.tower_changes:
        tower += f" changed {json.dumps(backbone.tower_changes, sort_keys=True)}"
    if code := own_code(config, ["model"]):  # a user's class may compute other features from the same weights
        tower += f" read by {config.model._target_} {fingerprint(code)}"
    source = FeatureSource(
        reader=reader,
        processor=processor_hash(image_processor_of(config, backbone)),
        tower=tower,
        media=media,
        layer=features.name,
        dtype=str(backbone.dtype).removeprefix("torch."),
        shape=size(features),
        arithmetic=f"{device} {config.model.attention} {config.trainer.get('precision') or '32-true'}",
        software=software(reader),
        model=backbone.name,
    )
    beside = {}
    for name, one in (outputs or {}).items():
        beside[name] = replace(source, layer=one.name, shape=size(one), exact=one.exact), one
    return replace(source, beside=beside)


def processor_hash(image_processor: Any) -> str:
    """SHA-256 of an image processor's class and settings."""
    settings = {"class": type(image_processor).__name__, **image_processor.to_dict()}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def tower_hash(backbone: Backbone, media: str) -> str:
    """SHA-256 of the tower's configuration, weights and LoRA scales as they are now, computed once for each state."""
    state = (media, backbone.identity, backbone.dtype, tuple(lora_scales(backbone.tower(media)).items()))
    if state not in backbone.tower_hashes:
        backbone.tower_hashes[state] = _hash(backbone, media)
    return backbone.tower_hashes[state]


def _hash(backbone: Backbone, media: str) -> str:
    """Models with one tower share it. For weights that are not in memory, the identity of their files is used."""
    tower: Any = backbone.tower(media)
    settings = tower.config.to_dict().items()
    settings = {name: value for name, value in settings if name[0] != "_" and name not in NOT_COMPARED}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    if scales := lora_scales(tower):
        digest.update(json.dumps(scales, sort_keys=True).encode())
    projector = {id(weight) for weight in backbone.projector.parameters()}  # which may lie in the tower
    after = {name for name, weight in tower.named_parameters() if id(weight) in projector}
    for name, weight in sorted(pair for pair in tower.state_dict().items() if pair[0] not in after):
        if weight.is_meta:
            return f"tower of {backbone.identity}" + (f", LoRA {digest.hexdigest()}" if scales else "")
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
